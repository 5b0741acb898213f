//! One guest, from power on to power off.

use std::{
    fs,
    io::{BufRead as _, BufReader},
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

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// For how long what is waited for.
struct Limits {
    silence: Duration,
    longest: Duration,
    /// A guest that is done has so long to power off.
    power_off: Duration,
}

/// Boots it, hands each record on as it comes, and returns all of them. An error unless the guest ran to its end and
/// said so; how it then powers off is between it and QEMU, and changes nothing of what it told.
pub(crate) fn run(machine: &Machine<'_>, each: impl FnMut(&Line)) -> anyhow::Result<Vec<Line>> {
    let limits = Limits { silence: machine.silence, longest: machine.longest, power_off: Duration::from_secs(20) };
    listen(machine.command()?, &limits, machine.console, each)
}

fn listen(
    mut command: Command,
    limits: &Limits,
    console: &Path,
    mut each: impl FnMut(&Line),
) -> anyhow::Result<Vec<Line>> {
    let mut running = Running(process::spawn(&mut command)?);
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
    let outcome = read(limits, &lines, &mut each);
    // After the last record the guest only powers off.
    if outcome.is_ok() && wait(&mut running, limits.power_off).is_none() {
        ui::say(format!("the guest was done, and not off {} s later", limits.power_off.as_secs()));
    }
    drop(running);
    let said = said.join().unwrap_or_default().join("\n");
    outcome.map_err(|error| explain(&error, console, &said))
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
    limits: &Limits,
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
        ensure!(heard.elapsed() < limits.silence, "the guest has been silent for {} s", limits.silence.as_secs());
        ensure!(began.elapsed() < limits.longest, "the guest is not done after {} s", limits.longest.as_secs());
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

    /// What comes of a guest that sends this and then does that.
    fn of(record: &str, then: &str) -> anyhow::Result<Vec<Line>> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("echo '{record}'; {then}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let [silence, longest] = [Duration::from_mins(1); 2];
        let limits = Limits { silence, longest, power_off: Duration::from_millis(100) };
        listen(command, &limits, &dir.path().join("console"), |_| {})
    }

    #[test]
    fn a_guest_that_said_its_last_word_is_whole_whatever_qemu_does_then() {
        let done = r#"{"seq":0,"t":1.5,"kind":"end","error":null}"#;
        for then in ["exit 0", "exit 3", "kill -9 $$", "exec sleep 60"] {
            assert_eq!(of(done, then).unwrap().len(), 1, "{then}");
        }
        let failed = of(&done.replace("null", "\"no disk\""), "exit 0").unwrap_err().to_string();
        assert!(failed.contains("no disk"), "{failed}");
        let cut = of(&done.replace("\"end\",\"error\":null", "\"trouble\""), "exit 0").unwrap_err().to_string();
        assert!(cut.contains("before it was done"), "{cut}");
    }

    #[test]
    fn commas_in_paths_are_no_options() {
        assert_eq!(escaped(Path::new("/a,b")), "/a,,b");
    }
}
