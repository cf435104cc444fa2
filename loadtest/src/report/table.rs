//! Parts of a run side by side.

use std::fmt::Write as _;

use serde::Serialize;

use super::Unit;

/// A table of a report.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

/// A column and its unit.
#[derive(Debug, Serialize)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
}

/// A row: no value where nothing was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

impl Table {
    pub(crate) fn new(name: &'static str, columns: &[(&'static str, Unit)]) -> Self {
        let columns = columns
            .iter()
            .map(|(name, unit)| Column { name, unit: *unit });
        Self {
            name,
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, values: Vec<Option<f64>>) {
        let name = name.into();
        self.rows.push(Row { name, values });
    }

    /// The table for a terminal.
    pub(crate) fn show(&self) -> String {
        let names = self.rows.iter().map(|row| row.name.chars().count());
        let width = names.chain([self.name.len()]).max().unwrap_or(0);
        let mut out = format!("  {:width$}", self.name);
        for column in &self.columns {
            let _ = write!(out, "  {:>14}", column.name);
        }
        out.push('\n');
        for cells in self.shown_rows() {
            let _ = write!(out, "  {:width$}", cells[0]);
            for cell in &cells[1..] {
                let _ = write!(out, "  {cell:>14}");
            }
            out.push('\n');
        }
        out
    }

    /// The cells of each row, the name first, as they are shown.
    pub(crate) fn shown_rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(&row.values).map(|(column, value)| {
                value.map_or_else(|| "–".to_owned(), |value| column.unit.show(value))
            });
            [row.name.clone()].into_iter().chain(cells).collect()
        })
    }
}
