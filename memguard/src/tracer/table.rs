//! How full the table of cgroups is.

/// How full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    pub slots: u64,
    /// `None` until all of it was looked at once.
    pub used: Option<u64>,
}

/// Slots that are looked at in one go: each takes a system call, of some 300 ns.
const AT_ONCE: u32 = 1024;

/// Counts the slots that are taken, a piece at a time, so that a table of any size holds up nobody.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    next: u32,
    counted: u64,
    /// Of the latest pass over all of it.
    used: Option<u64>,
}

impl Occupancy {
    /// Looks at the next piece.
    pub(super) fn look(&mut self, slots: u32, taken: impl Fn(u32) -> bool) -> Table {
        let end = self.next.saturating_add(AT_ONCE).min(slots);
        self.counted += (self.next..end).filter(|slot| taken(*slot)).count() as u64;
        self.next = end;
        if end == slots {
            self.used = Some(std::mem::take(&mut self.counted));
            self.next = 0;
        }
        Table { slots: u64::from(slots), used: self.used }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_table_is_counted_over_several_looks() {
        let mut occupancy = Occupancy::default();
        let slots = 2 * AT_ONCE + 16;
        let looks: Vec<_> = (0..4).map(|_| occupancy.look(slots, |slot| slot % 16 == 0).used).collect();
        let used = Some(u64::from(slots / 16));
        assert_eq!(looks, [None, None, used, used]);
        occupancy.look(slots, |_| false);
        assert_eq!(occupancy.look(slots, |_| false).used, Some(u64::from(AT_ONCE / 16)), "of the pass as a whole");
        assert_eq!(Occupancy::default().look(16, |_| true), Table { slots: 16, used: Some(16) });
    }
}
