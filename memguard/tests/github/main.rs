//! What memguard asks of GitHub, against a stub that keeps state and fails on demand.

#[cfg(test)]
mod checks;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod login;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod way;
