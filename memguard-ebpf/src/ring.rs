//! What goes into the ring to user space, and what wakes its reader up.
//!
//! A ring that is full stays so until somebody reads it, and nobody is woken up by a record that found no room. So no
//! job may be able to fill it with what wakes nobody up:
//!
//! - What is only a header may fill half of it ([`send`]). The other half is for snapshots.
//! - Snapshots are at most ten a second for each cgroup and wake the reader up, more often while much waits to be read
//!   ([`wake_flag`]).
//! - The reader comes by now and then by itself, whatever was or was not sent.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::bpf_ktime_get_ns,
};
use memguard_common::{Kind, RecordHeader};

use crate::{
    atomic,
    globals::WAKE_INTERVAL_NS,
    maps::{LAST_WAKE, RING, lose},
};

/// Whether more than one part in `parts` of the ring waits to be read.
#[inline(always)]
fn holds_more_than_one_in(parts: u64) -> bool {
    RING.query(u64::from(BPF_RB_AVAIL_DATA)) > RING.query(u64::from(BPF_RB_RING_SIZE)) / parts
}

/// Who wakes the reader up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// This record, if it is time for it.
    Paced,
    /// Another one; until then this waits.
    Never,
}

/// Sends a record that has nothing but its header, unless half of the ring is full already.
#[inline(always)]
pub fn send(kind: Kind, cgroup_id: u64, wake: Wake) {
    if holds_more_than_one_in(2) {
        lose(|losses| unsafe { &raw mut (*losses).ring_full });
        return;
    }
    let Some(mut slot) = RING.reserve::<RecordHeader>(0) else {
        lose(|losses| unsafe { &raw mut (*losses).ring_full });
        return;
    };
    let now = unsafe { bpf_ktime_get_ns() };
    unsafe {
        slot.as_mut_ptr().write(RecordHeader {
            kind: kind as u32,
            size: size_of::<RecordHeader>() as u32,
            at_ns: now,
            cgroup_id,
        });
    }
    slot.submit(if wake == Wake::Paced { wake_flag(now) } else { u64::from(BPF_RB_NO_WAKEUP) });
}

/// Whether a record may wake user space: at most one does in each [`WAKE_INTERVAL_NS`], for the whole node, and eight
/// while more than a quarter of the ring waits to be read.
#[inline(always)]
pub fn wake_flag(now: u64) -> u64 {
    let Some(last) = LAST_WAKE.get_ptr_mut(0) else { return u64::from(BPF_RB_NO_WAKEUP) };
    let interval = WAKE_INTERVAL_NS.load();
    unsafe {
        let woken = last.read_volatile();
        // Another CPU may have read its clock later and been here first.
        let since = now.saturating_sub(woken);
        let due = since >= interval || (since >= interval / 8 && holds_more_than_one_in(4));
        if due && atomic::compare_and_swap(last, woken, now) == woken {
            return u64::from(BPF_RB_FORCE_WAKEUP);
        }
    }
    u64::from(BPF_RB_NO_WAKEUP)
}
