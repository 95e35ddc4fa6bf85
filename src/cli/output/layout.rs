//! Tables that fit a width: no word is broken that has room on a line of its own.

use comfy_table::{ContentArrangement, Table, presets};

/// Between two columns.
const GAP: usize = 2;
/// The last column is wrapped if it has at least this room. With less, rows become blocks of lines.
const LAST_MIN: usize = 24;

/// A head and rows below each other: every column as wide as its widest cell. If `width` is too little for that, the last
/// column is wrapped at its words; if that does not do, each row is a block with a line or more a cell.
pub(super) fn table(head: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let widest = |column: usize| {
        let cells = std::iter::once(&head).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(widest).collect();
    let Some((last, others)) = widths.split_last() else { return String::new() };
    let others = others.iter().sum::<usize>() + GAP * others.len();
    match width.map(usize::from) {
        Some(width) if others + last > width && others + LAST_MIN > width => blocks(&head, rows, width),
        Some(width) if others + last > width => laid_out(&head, rows, Some(width)),
        _ => laid_out(&head, rows, None),
    }
}

fn laid_out(head: &[String], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    if !head.is_empty() {
        table.set_header(head);
    }
    table.add_rows(rows);
    let last = table.column_count().saturating_sub(1);
    for (place, column) in table.column_iter_mut().enumerate() {
        let is_last = place == last;
        column.set_padding((0, if is_last { 0 } else { 2 }));
        if !is_last && width.is_some() {
            column.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Each row as a block: its first cell, and below it the others behind their heads.
fn blocks(head: &[String], rows: &[Vec<String>], width: usize) -> String {
    let block = |row: &Vec<String>| {
        let named = head.iter().zip(row).map(|(name, cell)| vec![name.clone(), cell.clone()]);
        laid_out(&[], &named.collect::<Vec<_>>(), Some(width))
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [&str; 3] = ["ID", "HOOK", "ERROR"];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![
            row(["4be1c5b0a4b1d26e5f0c3a77", "crm", "the answer is 503, and the one before was 502"]),
            row(["1f0c3a77", "notify-oncall", "short"]),
        ]
    }

    fn check(width: Option<u16>, expected: &str) {
        let shown = table(&HEAD, &rows(), width);
        assert_eq!(shown, expected, "{width:?}");
        let fits = |line: &str| width.is_none_or(|width| line.chars().count() <= usize::from(width));
        assert!(shown.lines().all(fits), "{shown}");
    }

    #[test]
    fn tables_fit_the_width() {
        let whole = "\
ID                        HOOK           ERROR
4be1c5b0a4b1d26e5f0c3a77  crm            the answer is 503, and the one before was 502
1f0c3a77                  notify-oncall  short";
        check(None, whole);
        check(Some(200), whole);
        check(
            Some(70),
            "\
ID                        HOOK           ERROR
4be1c5b0a4b1d26e5f0c3a77  crm            the answer is 503, and the
                                         one before was 502
1f0c3a77                  notify-oncall  short",
        );
        check(
            Some(40),
            "\
ID     4be1c5b0a4b1d26e5f0c3a77
HOOK   crm
ERROR  the answer is 503, and the one
       before was 502

ID     1f0c3a77
HOOK   notify-oncall
ERROR  short",
        );
        assert_eq!(table(&[], &[], Some(80)), "");
    }
}
