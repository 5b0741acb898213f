//! Atomic operations on map values, which hooks on several CPUs change at once.
//!
//! `core` has no read-modify-write atomics for the BPF target (its target specification says that it cannot compare
//! and swap), and the compiler's intrinsics for them change from release to release. The instructions are part of the
//! BPF ISA (Linux 5.12 and newer, commit 5ca419f2864a and those after it), so they are written out here.

#[cfg(target_arch = "bpf")]
mod imp {
    use core::arch::asm;

    #[inline(always)]
    pub unsafe fn add(target: *mut u64, value: u64) {
        unsafe { asm!("lock *(u64 *)({t} + 0) += {v}", t = in(reg) target, v = in(reg) value) }
    }

    #[inline(always)]
    pub unsafe fn fetch_add(target: *mut u64, value: u64) -> u64 {
        let mut old = value;
        unsafe {
            asm!("{v} = atomic_fetch_add((u64 *)({t} + 0), {v})", t = in(reg) target, v = inout(reg) old);
        }
        old
    }

    #[inline(always)]
    pub unsafe fn swap(target: *mut u64, value: u64) -> u64 {
        let mut old = value;
        unsafe {
            asm!("{v} = xchg_64({t} + 0, {v})", t = in(reg) target, v = inout(reg) old);
        }
        old
    }

    #[inline(always)]
    pub unsafe fn compare_and_swap(target: *mut u64, expected: u64, new: u64) -> u64 {
        let mut r0 = expected;
        unsafe {
            asm!(
                "r0 = cmpxchg_64({t} + 0, r0, {n})",
                t = in(reg) target,
                n = in(reg) new,
                inout("r0") r0,
            );
        }
        r0
    }
}

#[cfg(not(target_arch = "bpf"))]
mod imp {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    pub unsafe fn add(target: *mut u64, value: u64) {
        unsafe { fetch_add(target, value) };
    }

    pub unsafe fn fetch_add(target: *mut u64, value: u64) -> u64 {
        unsafe { AtomicU64::from_ptr(target) }.fetch_add(value, Relaxed)
    }

    pub unsafe fn swap(target: *mut u64, value: u64) -> u64 {
        unsafe { AtomicU64::from_ptr(target) }.swap(value, Relaxed)
    }

    pub unsafe fn compare_and_swap(target: *mut u64, expected: u64, new: u64) -> u64 {
        match unsafe { AtomicU64::from_ptr(target) }.compare_exchange(expected, new, Relaxed, Relaxed) {
            Ok(old) | Err(old) => old,
        }
    }
}

pub use imp::{add, compare_and_swap, fetch_add, swap};

/// Subtracts and returns what stood there before.
#[inline(always)]
pub unsafe fn fetch_sub(target: *mut u64, value: u64) -> u64 {
    unsafe { fetch_add(target, value.wrapping_neg()) }
}
