//! The report as one page with plots. Everything is in the file: it needs no network.

use anyhow::Result;
use serde::Serialize;

use crate::report::Report;

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");
const PLOT: &str = include_str!("html/vendor/uPlot.iife.min.js");
const PLOT_STYLE: &str = include_str!("html/vendor/uPlot.min.css");
const PLOT_LICENSE: &str = include_str!("html/vendor/uPlot.LICENSE");

/// What the page's script reads.
#[derive(Serialize)]
struct PageData<'a> {
    report: &'a Report,
    /// Names and values as they are shown.
    figures: Vec<(&'a str, String)>,
    tables: Vec<ShownTable>,
}

#[derive(Serialize)]
struct ShownTable {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// The page of a report.
pub(crate) fn page(report: &Report) -> Result<String> {
    let data = PageData {
        report,
        figures: report.shown_figures().collect(),
        tables: report
            .tables
            .iter()
            .map(|table| ShownTable {
                name: table.name,
                columns: table.columns.iter().map(|column| column.name).collect(),
                rows: table.shown_rows().collect(),
            })
            .collect(),
    };
    let json = serde_json::to_string(&data)?;
    let title = format!("copydesk-loadtest {}", report.scenario);
    Ok(filled(&[
        ("@TITLE@", &title),
        ("@PLOT_STYLE@", PLOT_STYLE),
        ("@STYLE@", STYLE),
        ("@PLOT_LICENSE@", &format!("/*\n{PLOT_LICENSE}*/")),
        ("@PLOT@", PLOT),
        ("@SCRIPT@", SCRIPT),
        ("@DATA@", &inlined(&json)),
    ]))
}

/// JSON inside of a script element: nothing in it can end the element.
fn inlined(json: &str) -> String {
    json.replace('<', "\\u003c")
}

/// The page with its parts. The parts themselves are not searched for marks.
fn filled(parts: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(1 << 17);
    let mut rest = PAGE;
    loop {
        let next = parts
            .iter()
            .filter_map(|part| Some((rest.find(part.0)?, part)))
            .min_by_key(|(at, _)| *at);
        let Some((at, (mark, text))) = next else {
            out.push_str(rest);
            return out;
        };
        out.push_str(&rest[..at]);
        out.push_str(text);
        rest = &rest[at + mark.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn page_is_whole_and_refers_to_nothing_outside() {
        let mut report = Report::new("ramp", Duration::from_secs(1));
        report.parameter("trace", "</script><script>alert(1)</script>@SCRIPT@");
        let page = page(&report).unwrap();
        assert!(page.contains("uPlot"));
        assert!(page.contains("copydesk-loadtest ramp</title>"));
        assert!(!page.contains("alert(1)</script>"));
        // The mark in a parameter is not replaced.
        assert_eq!(page.matches("@SCRIPT@").count(), 1);
        for outside in ["src=", "href=", "@import", "fetch(", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        let data = page.split("id=\"data\">").nth(1).unwrap();
        let data = data.split("</script>").next().unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["report"]["schema"], crate::report::SCHEMA);
    }
}
