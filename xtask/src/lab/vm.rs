//! One guest, from power on to power off.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use memguard_lab::{Line, Record, scenario::Disk};

use super::{accel::Accel, qemu::Qemu};
use crate::{arch::Arch, process, ui};

/// What to boot.
pub(crate) struct Machine<'a> {
    pub(crate) accel: Accel,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    /// The image, which is not written to, and how fast it may be.
    pub(crate) disk: Option<(&'a Path, &'a Disk)>,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// Where the kernel's messages go.
    pub(crate) console: &'a Path,
    /// A guest that sends no record for so long is taken for dead.
    pub(crate) silence: Duration,
    pub(crate) longest: Duration,
}

impl Machine<'_> {
    fn command(&self) -> anyhow::Result<Command> {
        let guests = self.accel.guests();
        let qemu =
            Qemu::find(guests)?.with_context(|| format!("there is no QEMU for {guests}: run `cargo xtask setup`"))?;
        let mut command = qemu.command();
        command
            .args(self.accel.qemu_arguments(self.cpus))
            .args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)])
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-nic", "none"])
            // The first serial port is the console.
            .arg("-serial")
            .arg(format!("file:{}", escaped(self.console)))
            .args(records_port(guests))
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .arg("-append")
            // Zeroing at allocation is far slower under TCG than on a real machine.
            .arg(format!(
                "console={} panic=-1 loglevel=4 init_on_alloc=0 psi=1 random.trust_cpu=on",
                match guests {
                    Arch::Amd64 => "ttyS0",
                    Arch::Arm64 => "ttyAMA0",
                }
            ));
        if let Some((image, disk)) = self.disk {
            let bytes = u64::from(disk.mib_per_s) << 20;
            command
                .arg("-drive")
                .arg(format!(
                    "file={},format=raw,if=none,id=root,snapshot=on,throttling.iops-total={},throttling.bps-total={bytes}",
                    escaped(image),
                    disk.iops
                ))
                .args(["-device", "virtio-blk-pci,drive=root"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: a single system call, which sets a flag of the new process.
        unsafe {
            command.pre_exec(|| {
                // If we are killed, no VM stays behind.
                let kill = Some(rustix::process::Signal::KILL);
                Ok(rustix::process::set_parent_process_death_signal(kill)?)
            });
        }
        Ok(command)
    }
}

/// What carries the records, and is our end of a pipe: the second serial port, or a port of virtio's where the machine has
/// only one (QEMU's `virt` before 9.1).
const fn records_port(guests: Arch) -> &'static [&'static str] {
    match guests {
        Arch::Amd64 => &["-serial", "stdio"],
        Arch::Arm64 => &[
            "-chardev",
            // "stdio" would end with our end of its input, and then the guest waits for somebody to connect.
            "file,id=records,path=/dev/stdout",
            "-device",
            "virtio-serial-pci",
            "-device",
            "virtserialport,chardev=records,name=memguard.records",
        ],
    }
}

/// A comma separates options for QEMU, two are one.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Ends the process when it goes out of scope.
struct Running(Child);

impl Running {
    fn end(&mut self) -> Option<ExitStatus> {
        let _ = self.0.kill();
        self.0.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Boots it, hands each record on as it comes, and returns all of them. An error unless the guest ran to its end and
/// said so.
pub(crate) fn run(machine: &Machine<'_>, mut each: impl FnMut(&Line)) -> anyhow::Result<Vec<Line>> {
    let mut command = machine.command()?;
    let child = command.spawn().with_context(|| format!("can't start `{}`", process::shown(&command)))?;
    let mut running = Running(child);
    let (sender, lines) = channel();
    let out = running.0.stdout.take().context("no pipe to the guest")?;
    // QEMU itself says little. Read, so that it is never held up.
    let err = running.0.stderr.take().context("no pipe to QEMU")?;
    let said = thread::spawn(move || BufReader::new(err).lines().map_while(Result::ok).collect::<Vec<_>>());
    thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let outcome = read(machine, &lines, &mut each);
    // After the last record the guest only powers off.
    let status = match &outcome {
        Ok(_) => wait(&mut running, Duration::from_secs(20)),
        Err(_) => None,
    };
    let status = status.or_else(|| running.end());
    drop(running);
    let said = said.join().unwrap_or_default().join("\n");
    let records = outcome.map_err(|error| explain(&error, machine.console, &said))?;
    ensure!(status.is_some_and(|status| status.success()), "QEMU ended with {status:?}: {said}");
    Ok(records)
}

fn wait(running: &mut Running, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = running.0.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

fn read(
    machine: &Machine<'_>,
    lines: &std::sync::mpsc::Receiver<Vec<u8>>,
    each: &mut impl FnMut(&Line),
) -> anyhow::Result<Vec<Line>> {
    let began = Instant::now();
    let mut heard = Instant::now();
    let mut records: Vec<Line> = Vec::new();
    loop {
        ui::check_interrupt()?;
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(bytes) => {
                heard = Instant::now();
                // Firmware may write to the port before the kernel has it.
                let Some(start) = bytes.iter().position(|byte| *byte == b'{') else { continue };
                let line: Line = serde_json::from_slice(&bytes[start..]).with_context(|| {
                    format!("the guest sent what is no record: {}", String::from_utf8_lossy(&bytes).trim())
                })?;
                let expected = records.last().map_or(0, |last| last.seq + 1);
                ensure!(line.seq == expected, "record {} came where {expected} was due: one was lost", line.seq);
                each(&line);
                let end = matches!(line.record, Record::End { .. });
                records.push(line);
                if end {
                    break;
                }
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the guest ended before it was done"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        ensure!(heard.elapsed() < machine.silence, "the guest has been silent for {} s", machine.silence.as_secs());
        ensure!(began.elapsed() < machine.longest, "the guest is not done after {} s", machine.longest.as_secs());
    }
    if let Some(Record::End { error: Some(error) }) = records.last().map(|line| &line.record) {
        bail!("the guest could not do it: {error}");
    }
    Ok(records)
}

/// What went wrong, with what the kernel and QEMU had to say about it.
fn explain(error: &anyhow::Error, console: &Path, said: &str) -> anyhow::Error {
    let text = fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let telling = |line: &&str| {
        ["Kernel panic", "Oops", "BUG:", "general protection", "Call Trace", "lab-guest:"]
            .iter()
            .any(|word| line.contains(word))
    };
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.iter().position(telling).unwrap_or(lines.len().saturating_sub(12));
    let tail = lines[from..].iter().take(24).map(|line| format!("  console: {}", line.trim_end())).collect::<Vec<_>>();
    let said = if said.is_empty() { String::new() } else { format!("\n  QEMU: {said}") };
    anyhow::anyhow!("{error:#}{said}\n{}", tail.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_kernels_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let console = dir.path().join("console");
        fs::write(&console, "[0.1] booting\n[1.0] Kernel panic - not syncing: oh\n[1.1] CPU: 0\n").unwrap();
        let text = explain(&anyhow::anyhow!("the guest ended"), &console, "").to_string();
        assert!(
            text.contains("the guest ended") && text.contains("Kernel panic") && !text.contains("booting"),
            "{text}"
        );
    }

    #[test]
    fn commas_in_paths_are_no_options() {
        assert_eq!(escaped(Path::new("/a,b")), "/a,,b");
    }
}
