//! Tables that a command writes, in a document that people write around them.

use std::{fs, io, path::Path};

use anyhow::{Context as _, anyhow};

/// Puts a text between the markers of this name. A document that is not there begins with a heading.
fn insert(document: Option<&str>, name: &str, heading: &str, text: &str) -> Result<String, String> {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let Some(document) = document else {
        return Ok(format!("# {heading}\n\n{begin}\n{text}{end}\n"));
    };
    let wrong = || format!("it needs one line {begin} and after it one line {end}: the tables go between them");
    let (before, rest) = document.split_once(&begin).ok_or_else(wrong)?;
    let (_, after) = rest.split_once(&end).ok_or_else(wrong)?;
    if after.contains(&begin) || after.contains(&end) {
        return Err(wrong());
    }
    Ok(format!("{before}{begin}\n{text}{end}{after}"))
}

/// Writes a text between the markers of a file.
pub(super) fn write(path: &Path, name: &str, heading: &str, text: &str) -> anyhow::Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
    };
    let new = insert(old.as_deref(), name, heading, text)
        .map_err(|why| anyhow!("can't write the tables into {}: {why}", path.display()))?;
    fs::write(path, new).with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- t: begin -->";
    const END: &str = "<!-- t: end -->";

    #[test]
    fn tables_go_between_the_markers_and_leave_the_rest() {
        let insert = |document: Option<&str>, text| insert(document, "t", "A", text).unwrap();
        let document = format!("# A\n\nwords\n\n{BEGIN}\nold\n{END}\n\nmore\n");
        let new = insert(Some(&document), "| new |\n");
        assert_eq!(new, format!("# A\n\nwords\n\n{BEGIN}\n| new |\n{END}\n\nmore\n"));
        assert_eq!(insert(Some(&new), "| new |\n"), new, "a second time changes nothing");
        let first = insert(None, "| x |\n");
        assert_eq!(insert(Some(&first), "| x |\n"), first);
    }

    #[test]
    fn a_document_without_its_markers_is_left_alone() {
        for document in ["# A\n".to_owned(), format!("{END}{BEGIN}"), format!("{BEGIN}{END}{BEGIN}{END}")] {
            insert(Some(&document), "t", "A", "| x |\n").unwrap_err();
        }
    }
}
