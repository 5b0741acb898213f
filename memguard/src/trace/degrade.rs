//! A recording as a poorer machine would have made it.

use crate::engine::{Pressure, Sample};

/// A source of signals that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Without {
    /// No eBPF at all: cgroup files only.
    Tracer,
    /// No trampolines (fentry, fexit): kprobes see faults on text, but not which of them read from the disk, nor which
    /// text came back.
    Trampolines,
    /// PSI is switched off.
    Psi,
    /// No cpu.stat.
    Cpu,
}

/// Takes these away from a sample.
#[must_use]
pub fn degrade(mut sample: Sample, without: &[Without]) -> Sample {
    for source in without {
        match source {
            Without::Tracer => sample.tracer = None,
            Without::Trampolines => {
                if let Some(tracer) = &mut sample.tracer {
                    // What a kprobe counts is more than the major faults that are recorded; those are what is left of it
                    // for certain.
                    (tracer.text_returns, tracer.text_refaults, tracer.major_faults) = (None, None, None);
                }
            }
            Without::Psi => sample.pressure = Pressure::default(),
            Without::Cpu => sample.cpu = None,
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fixture::hang;

    #[test]
    fn takes_away_what_is_named_and_nothing_else() {
        assert_eq!(degrade(hang(3), &[]), hang(3));
        let sample = degrade(hang(3), &[Without::Tracer, Without::Psi]);
        assert_eq!((sample.tracer, sample.pressure), (None, Pressure::default()));
        assert_eq!((sample.cpu, sample.memory), (hang(3).cpu, hang(3).memory));
        let tracer = degrade(hang(3), &[Without::Trampolines]).tracer.unwrap();
        assert_eq!(tracer.text_returns, None);
        assert_eq!(tracer.text_faults, hang(3).tracer.unwrap().text_faults);
        assert_eq!(degrade(hang(3), &[Without::Cpu]).cpu, None);
    }
}
