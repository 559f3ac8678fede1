//! DSG's annotation CSV.

use std::{collections::BTreeMap, path::Path};

use selma_durable::DurableError;

use super::{
    DsgQuestion, Quirk, Quirks,
    dependency::{self, Parsed},
};
use crate::{EvalError, Place, files};

const COLUMNS: [&str; 9] = [
    "item_id",
    "text",
    "keywords",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "tuple",
    "question_natural_language",
];

/// Questions with the places they were read from.
pub(crate) type Rows = Vec<(Place, DsgQuestion)>;

/// A CSV file whose header has been matched against the columns of a format.
pub(crate) struct Table<const N: usize> {
    reader: csv::Reader<std::fs::File>,
    positions: [usize; N],
    path: std::path::PathBuf,
    /// Columns of the file that the format does not have.
    pub(crate) unknown: Vec<String>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn open(path: &Path, columns: [&'static str; N]) -> Result<Self, EvalError> {
        let mut reader = csv::Reader::from_reader(files::open(path)?);
        let header = reader.headers().map_err(|error| csv_error(path, error))?;
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (position, name) in header.iter().enumerate() {
            if !columns.contains(&name) {
                unknown.push(name.to_owned());
            } else if found.insert(name, position).is_some() {
                return Err(unexpected(path, name, &columns));
            }
        }
        let mut positions = [0; N];
        for (position, column) in positions.iter_mut().zip(columns) {
            *position = *found.get(column).ok_or_else(|| EvalError::MissingColumn {
                path: path.to_path_buf(),
                column,
                found: header.iter().collect::<Vec<_>>().join(", "),
            })?;
        }
        Ok(Self {
            reader,
            positions,
            path: path.to_path_buf(),
            unknown,
        })
    }

    /// Calls `row` with the place and the cells of each row, in the order of the format's columns.
    pub(crate) fn for_each(
        mut self,
        mut row: impl FnMut(Place, [&str; N]) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let mut record = csv::StringRecord::new();
        while self
            .reader
            .read_record(&mut record)
            .map_err(|error| csv_error(&self.path, error))?
        {
            let line = record.position().map_or(0, csv::Position::line);
            let place = Place::File {
                path: self.path.clone(),
                line,
            };
            // The reader refuses rows of another length than the header, so every position is there.
            row(
                place,
                self.positions
                    .map(|position| record.get(position).unwrap_or_default()),
            )?;
        }
        Ok(())
    }
}

pub(crate) fn integer(place: &Place, column: &'static str, cell: &str) -> Result<u32, EvalError> {
    cell.parse().map_err(|_| EvalError::Cell {
        place: place.clone(),
        column,
        expected: "an integer from 1 on",
        found: cell.to_owned(),
    })
}

pub(crate) fn read(path: &Path, quirks: Quirks) -> Result<(Rows, Vec<Quirk>), EvalError> {
    let table = Table::open(path, COLUMNS)?;
    let mut notes = Vec::new();
    for column in &table.unknown {
        if quirks == Quirks::Strict {
            return Err(unexpected(path, column, &COLUMNS));
        }
        notes.push(Quirk::ColumnIgnored {
            column: column.clone(),
        });
    }
    let mut rows = Rows::new();
    // Items whose dependencies are dropped, with the first cell to blame.
    let mut dropped: BTreeMap<String, String> = BTreeMap::new();
    table.for_each(
        |place,
         [
            item_id,
            text,
            keywords,
            id,
            parents,
            broad,
            detailed,
            tuple,
            question,
        ]| {
            let proposition_id = integer(&place, "proposition_id", id)?;
            let dependency = match dependency::parse(parents, quirks) {
                Parsed::Parents(dependency, ignored) => {
                    notes.extend(ignored.into_iter().map(|part| Quirk::PartIgnored {
                        item: item_id.to_owned(),
                        proposition: proposition_id,
                        part,
                    }));
                    dependency
                }
                Parsed::Malformed if quirks == Quirks::Official => {
                    dropped
                        .entry(item_id.to_owned())
                        .or_insert_with(|| parents.to_owned());
                    Vec::new()
                }
                Parsed::Malformed => {
                    return Err(EvalError::Cell {
                        place,
                        column: "dependency",
                        expected: "\"0\" or different proposition ids separated by commas alone",
                        found: parents.to_owned(),
                    });
                }
            };
            rows.push((
                place,
                DsgQuestion {
                    item_id: item_id.to_owned(),
                    text: text.to_owned(),
                    keywords: keywords.to_owned(),
                    proposition_id,
                    dependency,
                    category_broad: broad.to_owned(),
                    category_detailed: detailed.to_owned(),
                    tuple: tuple.to_owned(),
                    question: question.to_owned(),
                },
            ));
            Ok(())
        },
    )?;
    for (_, question) in &mut rows {
        if dropped.contains_key(&question.item_id) {
            question.dependency.clear();
        }
    }
    notes.extend(
        dropped
            .into_iter()
            .map(|(item, cell)| Quirk::GraphDropped { item, cell }),
    );
    Ok((rows, notes))
}

/// The file's bytes; `path` is what an error calls it.
pub(crate) fn to_csv<'a>(
    path: &Path,
    questions: impl Iterator<Item = &'a DsgQuestion>,
) -> Result<Vec<u8>, EvalError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(COLUMNS)
        .map_err(|error| csv_error(path, error))?;
    for question in questions {
        writer
            .write_record([
                question.item_id.as_str(),
                &question.text,
                &question.keywords,
                &question.proposition_id.to_string(),
                &dependency::format(&question.dependency),
                &question.category_broad,
                &question.category_detailed,
                &question.tuple,
                &question.question,
            ])
            .map_err(|error| csv_error(path, error))?;
    }
    Ok(writer
        .into_inner()
        .map_err(|error| DurableError::io("write", path)(error.into_error()))?)
}

pub(crate) fn csv_error(path: &Path, source: csv::Error) -> EvalError {
    EvalError::Csv {
        path: path.to_path_buf(),
        source,
    }
}

fn unexpected(path: &Path, found: &str, columns: &[&str]) -> EvalError {
    EvalError::UnexpectedColumn {
        path: path.to_path_buf(),
        found: found.to_owned(),
        expected: columns.join(", "),
    }
}
