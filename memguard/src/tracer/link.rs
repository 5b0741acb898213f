//! Loading, attaching and detaching single programs, each in the way of its kind.

use aya::{
    Btf,
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, fentry::FEntryLinkId, fexit::FExitLinkId,
        kprobe::KProbeLinkId, tp_btf::BtfTracePointLinkId,
    },
};

use crate::kernel::{Attach, Hook};

/// What keeps a program attached, by its kind.
pub(super) enum Link {
    Tracepoint(BtfTracePointLinkId),
    Fentry(FEntryLinkId),
    Fexit(FExitLinkId),
    Kprobe(KProbeLinkId),
}

pub(super) fn load(program: &mut Program, hook: &Hook, targets: &Btf) -> Result<(), ProgramError> {
    match hook.attach {
        Attach::Tracepoint => <&mut BtfTracePoint>::try_from(program)?.load(hook.target, targets),
        Attach::Fentry => <&mut FEntry>::try_from(program)?.load(hook.target, targets),
        Attach::Fexit => <&mut FExit>::try_from(program)?.load(hook.target, targets),
        // Whether it is for the call or for the return is told by the program's section.
        Attach::Kprobe | Attach::Kretprobe => <&mut KProbe>::try_from(program)?.load(),
    }
}

pub(super) fn link(program: &mut Program, hook: &Hook) -> Result<Link, ProgramError> {
    Ok(match hook.attach {
        Attach::Tracepoint => Link::Tracepoint(<&mut BtfTracePoint>::try_from(program)?.attach()?),
        Attach::Fentry => Link::Fentry(<&mut FEntry>::try_from(program)?.attach()?),
        Attach::Fexit => Link::Fexit(<&mut FExit>::try_from(program)?.attach()?),
        Attach::Kprobe | Attach::Kretprobe => Link::Kprobe(<&mut KProbe>::try_from(program)?.attach(hook.target, 0)?),
    })
}

pub(super) fn unlink(program: &mut Program, link: Link) -> Result<(), ProgramError> {
    match link {
        Link::Tracepoint(link) => <&mut BtfTracePoint>::try_from(program)?.detach(link),
        Link::Fentry(link) => <&mut FEntry>::try_from(program)?.detach(link),
        Link::Fexit(link) => <&mut FExit>::try_from(program)?.detach(link),
        Link::Kprobe(link) => <&mut KProbe>::try_from(program)?.detach(link),
    }
}

/// The last and telling line of what the kernel or aya said.
pub(super) fn why(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let said = log.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("processed "));
            match said {
                Some(line) => format!("{}; the verifier says: {}", plain(&io_error.to_string()), line.trim()),
                None => plain(&io_error.to_string()),
            }
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            plain(&text)
        }
    }
}

/// `ENOTSUPP` is meant for the kernel alone, so the C library has no words for it. It is what arm64's 6.1 says to fentry programs.
fn plain(text: &str) -> String {
    text.replace("Unknown error 524 (os error 524)", "not supported by this kernel (ENOTSUPP)")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_of_the_kernels_own_has_words() {
        let text = plain(&format!("can't attach: {}", io::Error::from_raw_os_error(524)));
        assert_eq!(text, "can't attach: not supported by this kernel (ENOTSUPP)");
    }
}
