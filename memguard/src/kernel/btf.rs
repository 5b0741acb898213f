//! Reading the kernel's BTF: where members of structures are, which functions and tracepoints there are, and how many
//! arguments they take.
//!
//! aya parses all of vmlinux BTF into 150,000 objects, which takes 39 MB at its peak and leaves 16 MB on the heap. What
//! memguard asks for are some thirty names, so this reader keeps the raw bytes, finds the names in one pass, and is
//! dropped. Format: Documentation/bpf/btf.rst.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Where the kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER: u32 = 24;
const HEADER_LEN: usize = HEADER as usize;

/// Kinds of BTF types, `BTF_KIND_*` of include/uapi/linux/btf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Kind {
    Int = 1,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    const ALL: [Self; 19] = [
        Self::Int,
        Self::Ptr,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Fwd,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Func,
        Self::FuncProto,
        Self::Var,
        Self::Datasec,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    fn from_info(info: u32) -> Option<Self> {
        Self::ALL.get((info >> 24 & 0x1f).checked_sub(1)? as usize).copied()
    }

    /// Bytes that follow the 12 bytes common to all types; `vlen` entries of some size for most.
    const fn tail(self, vlen: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 12 * vlen,
            Self::Enum | Self::FuncProto => 8 * vlen,
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }
}

/// Why BTF cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("can't read {}: {source} (the kernel needs CONFIG_DEBUG_INFO_BTF, and sysfs has to be mounted)", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{what} at byte {at}: this is not BTF as kernels up to 7.x write it")]
    Malformed { what: &'static str, at: usize },
}

const fn malformed(what: &'static str, at: usize) -> BtfError {
    BtfError::Malformed { what, at }
}

/// A type's number, as the kernel counts them: 0 is `void`.
pub type TypeId = u32;

/// Raw BTF with an index of where each type begins.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    /// Where each type begins; type 1 is the first.
    types: Vec<u32>,
    strings: std::ops::Range<usize>,
    /// Named types, by name and kind, for the names that were asked for.
    named: HashMap<(String, Kind), TypeId>,
    /// Enumerators that were asked for.
    enumerators: HashMap<String, i64>,
}

impl Btf {
    /// Reads the BTF at `path`, and looks up `names`: of structures, functions, typedefs and enumerators.
    pub fn read(path: &Path, names: &[&str]) -> Result<Self, BtfError> {
        let data = std::fs::read(path).map_err(|source| BtfError::Read { path: path.to_owned(), source })?;
        Self::parse(data, names)
    }

    /// The same from memory. No input makes it panic.
    pub fn parse(data: Vec<u8>, names: &[&str]) -> Result<Self, BtfError> {
        let word = |at: usize| read_u32(&data, at).ok_or(malformed("cut off", at));
        if data.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(malformed("no BTF magic of this machine's byte order", 0));
        }
        let header_len = word(4)? as usize;
        if header_len < HEADER_LEN {
            return Err(malformed("short header", 4));
        }
        let section = |offset: usize, len: usize| {
            let start = header_len.checked_add(word(offset)? as usize);
            let range = start.and_then(|start| Some(start..start.checked_add(word(len).ok()? as usize)?));
            range.filter(|range| range.end <= data.len()).ok_or(malformed("section out of bounds", offset))
        };
        let type_section = section(8, 12)?;
        let strings = section(16, 20)?;

        let mut types = Vec::with_capacity(type_section.len() / 32);
        let mut at = type_section.start;
        while at < type_section.end {
            let info = word(at + 4)?;
            let kind = Kind::from_info(info).ok_or(malformed("type of unknown kind", at))?;
            types.push(u32::try_from(at).map_err(|_| malformed("too large", at))?);
            at += 12 + kind.tail((info & 0xffff) as usize);
        }
        if at != type_section.end {
            return Err(malformed("last type cut off", at));
        }
        let mut btf = Self { data, types, strings, named: HashMap::new(), enumerators: HashMap::new() };
        btf.look_up(names);
        Ok(btf)
    }

    /// One pass over the strings to find where the names stand, one over the types to find who bears them.
    fn look_up(&mut self, names: &[&str]) {
        let strings = &self.data[self.strings.clone()];
        let mut offsets = HashMap::new();
        let mut at = 0;
        for string in strings.split(|byte| *byte == 0) {
            if let Some(name) = names.iter().find(|name| name.as_bytes() == string) {
                offsets.insert(at, (*name).to_owned());
            }
            at += u32::try_from(string.len()).unwrap_or(u32::MAX).saturating_add(1);
        }
        let (mut types, mut enumerators) = (HashMap::new(), HashMap::new());
        for id in 1..=self.count() {
            let Some(ty) = self.ty(id) else { continue };
            if let Some(name) = offsets.get(&ty.name_off) {
                // The first one counts, as in the kernel's own btf_find_by_name_kind().
                types.entry((name.clone(), ty.kind)).or_insert(id);
            }
            let entry = match ty.kind {
                Kind::Enum => 8,
                Kind::Enum64 => 12,
                _ => continue,
            };
            for index in 0..ty.vlen {
                let at = ty.at + 12 + index * entry;
                let Some(name) = read_u32(&self.data, at).and_then(|name_off| offsets.get(&name_off)) else { continue };
                let low = read_u32(&self.data, at + 4).unwrap_or_default();
                let value = if entry == 8 {
                    // The kind flag says whether 32-bit values are signed.
                    if ty.kind_flag { i64::from(low.cast_signed()) } else { i64::from(low) }
                } else {
                    let high = read_u32(&self.data, at + 8).unwrap_or_default();
                    (u64::from(high) << 32 | u64::from(low)).cast_signed()
                };
                enumerators.entry(name.clone()).or_insert(value);
            }
        }
        (self.named, self.enumerators) = (types, enumerators);
    }

    /// Number of types; ids go from 1 to this.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.types.len()).unwrap_or(u32::MAX)
    }

    fn ty(&self, id: TypeId) -> Option<Type> {
        let at = *self.types.get((id as usize).checked_sub(1)?)? as usize;
        let info = read_u32(&self.data, at + 4)?;
        Some(Type {
            at,
            name_off: read_u32(&self.data, at)?,
            kind: Kind::from_info(info)?,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 == 1,
            size_or_type: read_u32(&self.data, at + 8)?,
        })
    }

    fn string(&self, offset: u32) -> &[u8] {
        let strings = self.data.get(self.strings.clone()).unwrap_or_default();
        let rest = strings.get(offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The function of this name, and how many arguments it takes.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<(TypeId, usize)> {
        let id = *self.named.get(&(name.to_owned(), Kind::Func))?;
        let proto = self.ty(self.ty(id)?.size_or_type)?;
        (proto.kind == Kind::FuncProto).then_some((id, proto.vlen))
    }

    /// The tracepoint of this name (`btf_trace_<name>`, a typedef of a pointer to its prototype), and how many
    /// arguments it hands over: the prototype's first one is for the tracing machinery.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<(TypeId, usize)> {
        let id = *self.named.get(&(format!("btf_trace_{name}"), Kind::Typedef))?;
        let pointer = self.ty(self.ty(id)?.size_or_type)?;
        let proto = self.ty(pointer.size_or_type)?;
        (pointer.kind == Kind::Ptr && proto.kind == Kind::FuncProto).then_some((id, proto.vlen.saturating_sub(1)))
    }

    /// Offset in bytes of a member of a structure, members of unnamed structures and unions inside it included.
    /// `None` for bit fields too: a byte offset does not tell where they are.
    #[must_use]
    pub fn member_offset(&self, structure: &str, member: &str) -> Option<u32> {
        const DEEPEST: usize = 8;
        // Depth alone does not bound it: unnamed members of a structure's own type would be followed to the eighth power.
        const MOST: u32 = 100_000;
        let id = *self.named.get(&(structure.to_owned(), Kind::Struct))?;
        let mut left = MOST;
        let bits = self.find_member(id, member.as_bytes(), DEEPEST, &mut left)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn find_member(&self, id: TypeId, member: &[u8], depth: usize, left: &mut u32) -> Option<u32> {
        let ty = self.strip(id)?;
        if depth == 0 || !matches!(ty.kind, Kind::Struct | Kind::Union) {
            return None;
        }
        for index in 0..ty.vlen {
            *left = left.checked_sub(1)?;
            let at = ty.at + 12 + index * 12;
            let (name_off, member_type, offset) =
                (read_u32(&self.data, at)?, read_u32(&self.data, at + 4)?, read_u32(&self.data, at + 8)?);
            // With the kind flag the upper 8 bits are the width of a bit field, 0 for an ordinary member.
            let (width, bits) = if ty.kind_flag { (offset >> 24, offset & 0xff_ffff) } else { (0, offset) };
            let name = self.string(name_off);
            if name == member {
                return (width == 0).then_some(bits);
            }
            if name.is_empty()
                && let Some(inner) = self.find_member(member_type, member, depth - 1, left)
            {
                return bits.checked_add(inner);
            }
        }
        None
    }

    /// A type without its qualifiers.
    fn strip(&self, mut id: TypeId) -> Option<Type> {
        for _ in 0..8 {
            let ty = self.ty(id)?;
            match ty.kind {
                Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag | Kind::Typedef => id = ty.size_or_type,
                _ => return Some(ty),
            }
        }
        None
    }

    /// The value of an enumerator.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        self.enumerators.get(name).copied()
    }

    /// BTF in which only the functions and tracepoints of these names exist, under the ids that they have here.
    ///
    /// aya looks attach targets up by name in a BTF object of its own; handing it this one instead of the kernel's
    /// keeps it from building 150,000 types with all their members.
    #[must_use]
    pub fn attach_targets(&self, names: &[&str]) -> Vec<u8> {
        let mut wanted: Vec<(TypeId, u32, String)> = Vec::new();
        for name in names {
            if let Some((id, _)) = self.function(name) {
                wanted.push((id, (Kind::Func as u32) << 24, (*name).to_owned()));
            }
            if let Some((id, _)) = self.tracepoint(name) {
                wanted.push((id, (Kind::Typedef as u32) << 24, format!("btf_trace_{name}")));
            }
        }
        wanted.sort_unstable();
        // Several hooks may share a target.
        wanted.dedup();
        let last = wanted.last().map_or(0, |(id, ..)| *id);
        let mut strings = vec![0];
        let mut types = Vec::with_capacity(last as usize * 12);
        let mut next = wanted.into_iter().peekable();
        for id in 1..=last {
            let (mut name_off, mut info) = (0, (Kind::Fwd as u32) << 24);
            if let Some((_, wanted_info, name)) = next.next_if(|(wanted, ..)| *wanted == id) {
                name_off = u32::try_from(strings.len()).unwrap_or_default();
                info = wanted_info;
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
            }
            for word in [name_off, info, 0] {
                types.extend_from_slice(&word.to_ne_bytes());
            }
        }
        let mut blob = Vec::with_capacity(HEADER_LEN + types.len() + strings.len());
        blob.extend_from_slice(&MAGIC.to_ne_bytes());
        blob.extend_from_slice(&[1, 0]);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        for word in [HEADER, 0, length(&types), length(&types), length(&strings)] {
            blob.extend_from_slice(&word.to_ne_bytes());
        }
        blob.extend_from_slice(&types);
        blob.extend_from_slice(&strings);
        blob
    }
}

#[expect(clippy::struct_field_names, reason = "the kernel's name for it")]
struct Type {
    at: usize,
    name_off: u32,
    kind: Kind,
    vlen: usize,
    kind_flag: bool,
    size_or_type: u32,
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
