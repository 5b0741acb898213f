//! Decoding ring records. No input makes it panic.

use bytes::Buf;
use memguard_common::{CYCLE_BUCKETS, Counters, Kind, RETURN_BUCKETS, Record, RecordHeader, record::Snapshot};

/// A record that cannot be decoded: the two sides were not built from the same source, or memory was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a record of {0} bytes is too short")]
    Short(usize),
    #[error("a record of unknown kind {0}")]
    UnknownKind(u32),
    #[error("a record of {found} bytes says that it has {said}, and its kind has {expected}")]
    Size { found: usize, said: u32, expected: usize },
}

/// Decodes one record.
pub fn decode(mut data: &[u8]) -> Result<Record, DecodeError> {
    let found = data.len();
    if found < size_of::<RecordHeader>() {
        return Err(DecodeError::Short(found));
    }
    let header = RecordHeader {
        kind: data.get_u32_ne(),
        size: data.get_u32_ne(),
        at_ns: data.get_u64_ne(),
        cgroup_id: data.get_u64_ne(),
    };
    let kind = Kind::from_raw(header.kind).ok_or(DecodeError::UnknownKind(header.kind))?;
    let expected = match kind {
        Kind::Snapshot => size_of::<Snapshot>(),
        Kind::OomVictim | Kind::CgroupRemoved => size_of::<RecordHeader>(),
    };
    // The kernel rounds records up to 8 bytes, and all of ours are multiples of it.
    if found != expected || header.size as usize != expected {
        return Err(DecodeError::Size { found, said: header.size, expected });
    }
    Ok(match kind {
        Kind::Snapshot => Record::Snapshot(Snapshot {
            header,
            counters: counters(&mut data),
            limit_owner: data.get_u64_ne(),
            tasks_in_reclaim: data.get_u64_ne(),
        }),
        Kind::OomVictim => Record::OomVictim(header),
        Kind::CgroupRemoved => Record::CgroupRemoved(header),
    })
}

/// In the order of the structure's members. The caller has checked that there is enough.
fn counters(data: &mut &[u8]) -> Counters {
    let mut next = || data.get_u64_ne();
    let mut counters = Counters {
        cycles: next(),
        pages_reclaimed: next(),
        empty_cycles: next(),
        reclaim_ns: next(),
        reclaim_wall_ns: next(),
        faults: next(),
        exec_faults: next(),
        major_faults: next(),
        exec_major_faults: next(),
        refaults: next(),
        oom_victims: next(),
        stall_ns: next(),
        stall_wall_ns: next(),
        fault_ns: next(),
        between_faults_ns: next(),
        fault_wall_ns: next(),
        text_refaults: next(),
        text_returns: [0; RETURN_BUCKETS],
        cycle_ns_log2: [0; CYCLE_BUCKETS],
    };
    counters.text_returns.fill_with(&mut next);
    counters.cycle_ns_log2.fill_with(next);
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a record as the eBPF side writes them: the structure in memory.
    fn bytes_of<T: Copy>(value: &T) -> Vec<u8> {
        // SAFETY: the wire types are repr(C) without padding (asserted in memguard-common), so every byte is set.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
    }

    fn snapshot() -> Snapshot {
        let mut counters = Counters {
            cycles: 1,
            pages_reclaimed: 2,
            empty_cycles: 3,
            reclaim_ns: 4,
            reclaim_wall_ns: 5,
            faults: 6,
            exec_faults: 7,
            major_faults: 8,
            exec_major_faults: 9,
            refaults: 10,
            oom_victims: 11,
            stall_ns: 16,
            stall_wall_ns: 17,
            fault_ns: 23,
            between_faults_ns: 24,
            fault_wall_ns: 25,
            text_refaults: 22,
            text_returns: [18, 19, 20, 21],
            cycle_ns_log2: [0; CYCLE_BUCKETS],
        };
        for (bucket, value) in counters.cycle_ns_log2.iter_mut().zip(100..) {
            *bucket = value;
        }
        Snapshot {
            header: RecordHeader {
                kind: Kind::Snapshot as u32,
                size: u32::try_from(size_of::<Snapshot>()).unwrap(),
                at_ns: 12,
                cgroup_id: 13,
            },
            counters,
            limit_owner: 14,
            tasks_in_reclaim: 15,
        }
    }

    #[test]
    fn decodes_what_the_structures_look_like_in_memory() {
        let sent = snapshot();
        assert_eq!(decode(&bytes_of(&sent)), Ok(Record::Snapshot(sent)));
        for kind in [Kind::OomVictim, Kind::CgroupRemoved] {
            let header = RecordHeader { kind: kind as u32, size: 24, at_ns: 1, cgroup_id: 2 };
            let decoded = decode(&bytes_of(&header)).unwrap();
            let expected = match kind {
                Kind::OomVictim => Record::OomVictim(header),
                Kind::CgroupRemoved => Record::CgroupRemoved(header),
                Kind::Snapshot => unreachable!(),
            };
            assert_eq!(decoded, expected);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let good = bytes_of(&snapshot());
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = good.clone();
        longer.extend([0; 8]);
        assert!(matches!(decode(&longer), Err(DecodeError::Size { .. })));
        let mut unknown = good.clone();
        unknown[0] = 99;
        assert_eq!(decode(&unknown), Err(DecodeError::UnknownKind(99)));
        let mut lies = good;
        lies[4] = 0;
        assert!(matches!(decode(&lies), Err(DecodeError::Size { .. })));
    }
}
