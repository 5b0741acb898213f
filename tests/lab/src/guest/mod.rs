//! PID 1 of a guest: mounts, runs the job, reports over a port of its own, powers off.

mod cgroups;
mod children;
mod job;
mod machine;
mod port;
mod witness;

use anyhow::Context as _;
use memguard_lab::{Job, Record};

use self::port::Port;
pub(crate) use self::{
    cgroups::path as cgroup_path,
    children::{on_the_disk, spawn_in},
    machine::loopback,
};

/// Never returns: the end of PID 1 would be a panic.
pub(crate) fn main() -> ! {
    let outcome = run();
    if let Err(error) = &outcome {
        // Without a port there is still the console.
        println!("lab-guest: {error:#}");
    }
    machine::power_off();
}

fn run() -> anyhow::Result<()> {
    machine::mount_virtual()?;
    machine::load_modules()?;
    let port = Port::open().context("the port for records can't be used")?;
    let outcome = (|| {
        let job = std::fs::read("/job.json").context("can't read /job.json")?;
        let job: Job = serde_json::from_slice(&job).context("/job.json is not a job")?;
        port.send(Record::Boot { kernel: machine::kernel_release(), cpus: machine::cpus() });
        match job {
            Job::Scenario { scenario, memguard, arguments } => job::scenario(&port, &scenario, memguard, &arguments),
            Job::Chain { scenario, rounds, app_key } => job::chain(&port, &scenario, &rounds, &app_key),
            Job::Containers { plan } => job::containers(&port, &plan),
            Job::Command { argv } => job::command(&port, &argv),
        }
    })();
    let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
    port.send(Record::End { error });
    port.drain();
    outcome
}
