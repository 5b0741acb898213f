//! BTF written by hand, and read back.

use super::*;

/// Writes BTF by hand.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Writer {
    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: Kind, flag: bool, vlen: u32, size_or_type: u32, tail: &[u32]) -> u32 {
        let name = self.string(name);
        let info = u32::from(flag) << 31 | (kind as u32) << 24 | vlen;
        for word in [name, info, size_or_type].iter().chain(tail) {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
        self.count += 1;
        self.count
    }

    fn finish(&self) -> Vec<u8> {
        let mut blob = MAGIC.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        let [types, strings] = [&self.types, &self.strings].map(|bytes| u32::try_from(bytes.len()).unwrap());
        for word in [24, 0, types, types, strings] {
            blob.extend(u32::to_ne_bytes(word));
        }
        blob.extend(&self.types);
        blob.extend(&self.strings);
        blob
    }
}

const NAMES: &[&str] =
    &["vm_fault", "filemap_fault", "btf_trace_mark_victim", "PG_head", "PG_negative", "BIG", "nothing"];

/// A structure with a qualified unnamed structure inside, a bit field, a function, a tracepoint, three enums.
fn sample() -> Vec<u8> {
    let mut w = Writer::default();
    let int = w.add("int", Kind::Int, false, 0, 4, &[32]);
    let (vma, flags) = (w.string("vma"), w.string("flags"));
    let inner = w.add("", Kind::Struct, false, 1, 8, &[vma, int, 64]);
    let qualified = w.add("", Kind::Const, false, 0, inner, &[]);
    let bit = w.string("bit");
    w.add("vm_fault", Kind::Struct, true, 3, 32, &[0, qualified, 128, flags, int, 256, bit, int, (1 << 24) + 288]);
    let proto = w.add("", Kind::FuncProto, false, 1, int, &[vma, int]);
    w.add("filemap_fault", Kind::Func, false, 0, proto, &[]);
    let trace_proto = w.add("", Kind::FuncProto, false, 3, 0, &[0, int, 0, int, 0, int]);
    let pointer = w.add("", Kind::Ptr, false, 0, trace_proto, &[]);
    w.add("btf_trace_mark_victim", Kind::Typedef, false, 0, pointer, &[]);
    let (head, negative, big) = (w.string("PG_head"), w.string("PG_negative"), w.string("BIG"));
    w.add("", Kind::Enum, false, 1, 4, &[head, 6]);
    w.add("", Kind::Enum, true, 1, 4, &[negative, u32::MAX]);
    w.add("", Kind::Enum64, false, 1, 8, &[big, 1, 2]);
    w.finish()
}

#[test]
fn finds_members_arities_and_enumerators() {
    let btf = Btf::parse(sample(), NAMES).unwrap();
    assert_eq!(btf.member_offset("vm_fault", "vma"), Some(16 + 8), "through an unnamed const struct");
    assert_eq!(btf.member_offset("vm_fault", "flags"), Some(32));
    assert_eq!(btf.member_offset("vm_fault", "bit"), None, "a bit field");
    assert_eq!(btf.member_offset("vm_fault", "none"), None);
    assert_eq!(btf.member_offset("nothing", "none"), None);
    assert_eq!(btf.function("filemap_fault").unwrap().1, 1);
    assert_eq!(btf.tracepoint("mark_victim").unwrap().1, 2);
    assert_eq!(btf.enumerator("PG_head"), Some(6));
    assert_eq!(btf.enumerator("PG_negative"), Some(-1));
    assert_eq!(btf.enumerator("BIG"), Some(1 | 2 << 32));
    assert_eq!(btf.enumerator("nothing"), None);
}

#[test]
fn attach_targets_keep_their_ids() {
    let btf = Btf::parse(sample(), NAMES).unwrap();
    let names = ["filemap_fault", "filemap_fault", "mark_victim", "nothing"];
    let blob = btf.attach_targets(&names);
    let mut all: Vec<_> = NAMES.to_vec();
    all.extend(names);
    let reduced = Btf::parse(blob.clone(), &all).unwrap();
    assert_eq!(
        reduced.named.get(&("filemap_fault".to_owned(), Kind::Func)),
        Some(&btf.function("filemap_fault").unwrap().0)
    );
    let aya = aya::Btf::parse(&blob, aya::Endianness::default()).unwrap();
    let id = aya.id_by_type_name_kind("btf_trace_mark_victim", aya_kind_typedef()).unwrap();
    assert_eq!(id, btf.tracepoint("mark_victim").unwrap().0);
}

/// aya does not re-export its `BtfKind`; the type follows from the function that takes it.
fn aya_kind_typedef() -> aya_obj::btf::BtfKind {
    aya_obj::btf::BtfKind::Typedef
}

#[test]
fn survives_any_damage() {
    let good = sample();
    for cut in 0..good.len() {
        let _ = Btf::parse(good[..cut].to_vec(), NAMES);
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(btf) = Btf::parse(bad, NAMES) {
                let _ = btf.member_offset("vm_fault", "vma");
                let _ = btf.function("filemap_fault");
                let _ = btf.tracepoint("mark_victim");
                let _ = btf.attach_targets(&["filemap_fault", "mark_victim"]);
            }
        }
    }
    assert!(Btf::parse(Vec::new(), NAMES).unwrap_err().to_string().contains("not BTF"));
    assert!(Btf::read(Path::new("/nowhere"), NAMES).unwrap_err().to_string().contains("CONFIG_DEBUG_INFO_BTF"));
}

#[test]
fn reads_this_machines_kernel_if_it_has_btf() {
    if !Path::new(VMLINUX).exists() {
        return;
    }
    let btf = Btf::read(Path::new(VMLINUX), &["task_struct", "cgroups", "schedule"]).unwrap();
    assert!(btf.count() > 10_000);
    assert!(btf.member_offset("task_struct", "comm").is_some());
    assert_eq!(btf.function("schedule").unwrap().1, 0);
}

#[test]
fn a_structure_of_itself_is_not_followed_for_ever() {
    let mut w = Writer::default();
    // 64 unnamed members of its own type: 64 to the eighth without a bound.
    let tail: Vec<u32> = [0, 1, 0].repeat(64);
    w.add("vm_fault", Kind::Struct, false, 64, 8, &tail);
    let btf = Btf::parse(w.finish(), NAMES).unwrap();
    assert_eq!(btf.member_offset("vm_fault", "vma"), None);
}
