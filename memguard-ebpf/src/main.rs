//! The hooks. They only count: what the counters mean is decided in user space.
//!
//! One object for every kernel. Each hook has twins for the ways to attach it (BTF tracepoint, fentry or fexit,
//! kprobe); the loader picks one of each by the plan, and what is not picked is never given to the kernel.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "for the host this crate is only type-checked, see main()")
)]

mod atomic;
mod fault;
mod globals;
mod kernel;
mod lifecycle;
mod maps;
mod oom;
mod reclaim;
mod refault;
mod ring;
mod span;
mod stall;

/// The helpers used (`bpf_ktime_get_ns` aside) and tracing programs ask for a GPL-compatible licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program is for the kernel: build it with `cargo xtask build`");
}
