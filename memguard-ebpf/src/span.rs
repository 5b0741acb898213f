//! Wall time during which at least one task of a cgroup is in some state.

use crate::atomic;

/// Where such a time is kept: how many tasks are in the state, up to when it is accounted, and the sum.
#[derive(Clone, Copy)]
pub struct Span {
    pub tasks: *mut u64,
    pub accounted_ns: *mut u64,
    pub wall_ns: *mut u64,
}

impl Span {
    /// A task enters the state.
    #[inline(always)]
    pub unsafe fn enter(self, now: u64) {
        unsafe {
            if atomic::fetch_add(self.tasks, 1) == 0 {
                atomic::swap(self.accounted_ns, now);
            }
        }
    }

    /// A task leaves it. Until now there was at least one in it, this one. The swap hands each span of time to exactly
    /// one of the CPUs that get here at once.
    #[inline(always)]
    pub unsafe fn leave(self, now: u64) {
        unsafe {
            let accounted = atomic::swap(self.accounted_ns, now);
            if accounted != 0 && now > accounted {
                atomic::add(self.wall_ns, now - accounted);
            }
            atomic::fetch_sub(self.tasks, 1);
        }
    }

    /// Takes an entry back whose end was never seen.
    #[inline(always)]
    pub unsafe fn forget(self) {
        unsafe { atomic::fetch_sub(self.tasks, 1) };
    }
}
