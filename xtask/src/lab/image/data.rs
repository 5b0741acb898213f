//! What programs of Debian work on in a guest. Made the same way every time.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::Context as _;

use crate::process;

/// The tree: folders, files in each, KiB of each.
const FOLDERS: u32 = 48;
const FILES: u32 = 128;
const FILE_KIB: u32 = 32;
/// Rows of the database, some 300 bytes each.
const ROWS: u32 = 720_000;

/// What the image's name depends on.
pub(super) const SIZES: [u32; 4] = [FOLDERS, FILES, FILE_KIB, ROWS];

/// 192 MiB of C in 6144 files, each of which compiles.
pub(super) fn source_tree(path: &Path) -> anyhow::Result<()> {
    for folder in 0..FOLDERS {
        let folder_path = path.join(format!("d{folder:02}"));
        fs::create_dir_all(&folder_path).with_context(|| format!("can't make {}", folder_path.display()))?;
        for file in 0..FILES {
            let text = c_file(folder * FILES + file)?;
            let path = folder_path.join(format!("f{file:03}.c"));
            fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Functions with loops, branches and a table, none like another.
fn c_file(number: u32) -> anyhow::Result<String> {
    let wanted = FILE_KIB as usize * 1024;
    let mut text = String::with_capacity(wanted + 1024);
    let mut state = 0x9e37_79b9_u32.wrapping_mul(number + 1) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    writeln!(
        text,
        "/* Module {number}: nothing in here means anything. */\n#include <stddef.h>\n#include <string.h>\n"
    )?;
    for function in 0_u32.. {
        if text.len() >= wanted {
            break;
        }
        let (a, b, c, d) = (next(), next(), next(), next() % 61 + 3);
        write!(
            text,
            "struct record_{function} {{ unsigned key, value; char name[{d}]; struct record_{function} *next; }};\n\
             static const unsigned table_{a:08x}[8] = {{ {a}u, {b}u, {c}u, {d}u, {}u, {}u, {}u, {}u }};\n\
             /* Folds the list into a number; word{:05} word{:05} word{:05}. */\n\
             unsigned fold_{number}_{function}(struct record_{function} *head, unsigned seed)\n{{\n\
             \tunsigned sum = seed ^ {b}u;\n\
             \tfor (size_t i = 0; head != NULL; head = head->next, i++) {{\n\
             \t\tif ((head->key & {d}u) == 0)\n\t\t\tsum += table_{a:08x}[i % 8] * head->value;\n\
             \t\telse if (strlen(head->name) > {}u)\n\t\t\tsum = (sum << 5) ^ (sum >> 3) ^ {c}u;\n\
             \t\telse\n\t\t\tsum -= head->key / (head->value | 1u);\n\t}}\n\treturn sum;\n}}\n\n",
            next(),
            next(),
            next(),
            next(),
            next() % 100_000,
            next() % 100_000,
            next() % 100_000,
            d / 2
        )?;
    }
    Ok(text)
}

/// A table with an index, some 220 MiB, made by the image's own sqlite3 so that no other has to be on this machine.
pub(super) fn database(root: &Path, path: &Path) -> anyhow::Result<()> {
    let script = format!(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;\n\
         CREATE TABLE rows (id INTEGER PRIMARY KEY, key INTEGER, body TEXT);\n\
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})\n\
         INSERT INTO rows SELECT i, (i * 7919) % 1000003, printf('%0250d', i * 104729) FROM n;\n\
         CREATE INDEX by_key ON rows (key);"
    );
    // Its links are absolute, so the loader is called by its real name.
    let folders = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|folder| root.join(folder));
    let libraries = folders.each_ref().map(|folder| folder.display().to_string()).join(":");
    let mut command = Command::new(folders[0].join("ld-linux-x86-64.so.2"));
    command.args(["--library-path", &libraries]).arg(root.join("usr/bin/sqlite3")).arg(path).arg(script);
    process::output(&mut command).map(drop).context("can't make the database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_tree_are_as_large_as_promised_and_differ() {
        let files: Vec<String> = [0, 1, 6143].map(|number| c_file(number).unwrap()).into();
        for file in &files {
            assert!((32 * 1024..34 * 1024).contains(&file.len()), "{}", file.len());
            assert_eq!(file.matches('{').count(), file.matches('}').count());
        }
        assert_ne!(files[0], files[1]);
        assert_eq!(c_file(1).unwrap(), files[1], "made the same way every time");
    }
}
