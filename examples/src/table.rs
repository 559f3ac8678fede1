//! Text in columns.

/// Lines of a label and a value, the values one below the other.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows
        .iter()
        .map(|(label, _)| label.chars().count())
        .max()
        .unwrap_or(0);
    let line = |(label, value): &(&str, String)| format!("{label:width$}  {value}");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Rows of cells below a heading; columns of numbers are flush right, the others flush left.
pub fn columns<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|cell| cell.chars().count());
    let mut numbers = [true; N];
    for row in rows {
        for ((width, number), cell) in widths.iter_mut().zip(&mut numbers).zip(row) {
            *width = (*width).max(cell.chars().count());
            *number &= cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '[');
        }
    }
    let line = |cells: [&str; N]| {
        let cells = cells.iter().zip(widths).zip(numbers);
        let cells: Vec<String> = cells
            .map(|((cell, width), number)| {
                if number {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:width$}")
                }
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    let rows = rows
        .iter()
        .map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(heading))
        .chain(rows)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "10".to_owned()],
            ["bcd".to_owned(), "7".to_owned()],
        ];
        assert_eq!(columns(["x", "n"], &rows), "x     n\na    10\nbcd   7");
        assert_eq!(
            pairs(&[("a", "1".to_owned()), ("bc", "2".to_owned())]),
            "a   1\nbc  2"
        );
    }
}
