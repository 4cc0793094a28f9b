//! Text in columns.

use anstyle::Style;
use comfy_table::{ContentArrangement, Table, presets};

use crate::terminal::HEADING;

/// One line of a table; its first and last cell can be coloured.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) cells: Vec<String>,
    pub(crate) first: Style,
    pub(crate) last: Style,
}

/// The table as text, one line a row; an empty header leaves the first line out.
pub(crate) fn render(header: &[&str], rows: Vec<Row>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    // A line break inside a cell would tear the row apart.
    table.add_rows(rows.iter().map(|row| row.cells.iter().map(|cell| cell.replace(['\n', '\r'], " "))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut lines = table.lines();
    let mut out = String::new();
    if !header.is_empty() {
        let line = lines.next().unwrap_or_default();
        out += &format!("{HEADING}{}{HEADING:#}\n", line.trim_end());
    }
    for (line, row) in lines.zip(&rows) {
        out += &colour(line.trim_end(), row);
        out.push('\n');
    }
    out
}

fn colour(line: &str, row: &Row) -> String {
    let (first, last) = (row.first, row.last);
    let head = row.cells.first().filter(|head| line.starts_with(head.as_str())).map_or("", String::as_str);
    let rest = &line[head.len()..];
    let tail = row.cells.last().filter(|tail| rest.ends_with(tail.as_str())).map_or("", String::as_str);
    let middle = &rest[..rest.len() - tail.len()];
    format!("{first}{head}{first:#}{middle}{last}{tail}{last:#}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::{GOOD, NAME};

    fn row(cells: &[&str]) -> Row {
        Row { cells: cells.iter().map(|cell| (*cell).to_owned()).collect(), first: NAME, last: GOOD }
    }

    #[test]
    fn columns_line_up_without_colours() {
        let text = render(&["NAME", "STATE"], vec![row(&["a/long", "ready"]), row(&["b\nc", "ready"])]);
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), "NAME    STATE\na/long  ready\nb c     ready\n");
    }

    #[test]
    fn first_and_last_cell_are_coloured() {
        let text = render(&[], vec![row(&["a", "b", "c"])]);
        assert_eq!(text, format!("{NAME}a{NAME:#}  b  {GOOD}c{GOOD:#}\n"));
    }
}
