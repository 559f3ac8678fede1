//! The dependency cell ("0", "1", "1,4"), and what each program makes of a malformed one.

use serde::{Deserialize, Serialize};

/// How to read an annotation file that is not well formed.
///
/// DSG-1k itself has twelve dependency cells that are not lists of integers ("5, background", "1,2, 4"), cells
/// that mix "0" with others, questions that depend on themselves or on each other, and an item whose first
/// proposition is missing. Its authors' code and SELMA's copy treat them differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quirks {
    /// Refuse all of them.
    #[default]
    Strict,
    /// As `dsg/data_utils.py` of `j-min/DSG`: spaces around an integer are allowed; one cell that is not a list
    /// of integers drops the dependencies of the whole item.
    Official,
    /// As `DSG/evaluation.py` of SELMA: a part of a cell that is not literally a proposition's id is passed over,
    /// so "1,2, 4" means 1 and 2.
    Selma,
}

/// One thing that a lenient reader did with a file that a strict reader refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// All dependencies of the item were dropped because of this cell ([`Quirks::Official`]).
    GraphDropped {
        /// The item.
        item: String,
        /// The malformed cell.
        cell: String,
    },
    /// One part of a dependency cell was passed over.
    PartIgnored {
        /// The item.
        item: String,
        /// The dependent proposition.
        proposition: u32,
        /// The part, as it stands in the file.
        part: String,
    },
    /// A dependency on a proposition that the item does not have was passed over.
    UnknownParent {
        /// The item.
        item: String,
        /// The dependent proposition.
        proposition: u32,
        /// The proposition that is not there.
        parent: u32,
    },
    /// A proposition that depends on itself; this changes no score.
    SelfReference {
        /// The item.
        item: String,
        /// The proposition.
        proposition: u32,
    },
    /// Propositions that depend on each other in a circle; the dependencies are kept.
    Cycle {
        /// The item.
        item: String,
        /// The circle; the first proposition is repeated as the last.
        cycle: Vec<u32>,
    },
    /// A column that DSG does not have was passed over.
    ColumnIgnored {
        /// The column.
        column: String,
    },
}

/// What a dependency cell says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The parents, without "0" and without repetition, and the parts that were passed over.
    Parents(Vec<u32>, Vec<String>),
    /// Not a list of integers.
    Malformed,
}

pub(crate) fn parse(cell: &str, quirks: Quirks) -> Parsed {
    let mut parents = Vec::new();
    let mut ignored = Vec::new();
    for part in cell.split(',') {
        let text = match quirks {
            Quirks::Official => part.trim(),
            Quirks::Strict | Quirks::Selma => part,
        };
        // "+1" and "01" are integers to `u32::from_str`, but no proposition is called so.
        match text.parse::<u32>() {
            Ok(id) if id.to_string() == text => {
                let mixed_zero = id == 0 && cell != "0";
                if quirks == Quirks::Strict && (mixed_zero || parents.contains(&id)) {
                    return Parsed::Malformed;
                }
                if id != 0 && !parents.contains(&id) {
                    parents.push(id);
                }
                if mixed_zero {
                    ignored.push(part.to_owned());
                }
            }
            _ if quirks == Quirks::Selma => ignored.push(part.to_owned()),
            _ => return Parsed::Malformed,
        }
    }
    Parsed::Parents(parents, ignored)
}

pub(crate) fn format(parents: &[u32]) -> String {
    if parents.is_empty() {
        return "0".to_owned();
    }
    let parts: Vec<_> = parents.iter().map(u32::to_string).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parents(ids: &[u32]) -> Parsed {
        Parsed::Parents(ids.to_vec(), Vec::new())
    }

    #[test]
    fn well_formed_cells_mean_the_same_to_all() {
        for quirks in [Quirks::Strict, Quirks::Official, Quirks::Selma] {
            assert_eq!(parse("0", quirks), parents(&[]));
            assert_eq!(parse("3", quirks), parents(&[3]));
            assert_eq!(parse("1,14", quirks), parents(&[1, 14]));
        }
    }

    #[test]
    fn strict_refuses_whatever_the_reference_programs_disagree_about() {
        for cell in [
            "",
            " ",
            "5, right",
            "1,2, 4",
            "7, 1",
            "0,4",
            "2,0",
            "1,1",
            "-1",
            "1.0",
            "+1",
            "01",
            "1,",
            "4294967296",
        ] {
            assert_eq!(parse(cell, Quirks::Strict), Parsed::Malformed, "{cell:?}");
        }
    }

    #[test]
    fn official_strips_spaces_and_gives_up_on_words() {
        assert_eq!(parse("1,2, 4", Quirks::Official), parents(&[1, 2, 4]));
        assert_eq!(parse("5, right", Quirks::Official), Parsed::Malformed);
        assert_eq!(parse("", Quirks::Official), Parsed::Malformed);
        assert_eq!(
            parse("0,4", Quirks::Official),
            Parsed::Parents(vec![4], vec!["0".into()])
        );
    }

    #[test]
    fn selma_passes_over_what_is_not_literally_an_id() {
        assert_eq!(
            parse("1,2, 4", Quirks::Selma),
            Parsed::Parents(vec![1, 2], vec![" 4".into()])
        );
        assert_eq!(
            parse("5, right", Quirks::Selma),
            Parsed::Parents(vec![5], vec![" right".into()])
        );
    }

    #[test]
    fn a_formatted_cell_reads_back() {
        for ids in [&[][..], &[7], &[3, 1, 2]] {
            assert_eq!(parse(&format(ids), Quirks::Strict), parents(ids));
        }
    }
}
