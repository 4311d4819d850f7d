//! A report as one page that needs nothing from elsewhere: the report as JSON in it, and what draws it.

use anyhow::{Result, ensure};

use super::Report;

const PAGE: &str = include_str!("page.html");
const REPORT: &str = "/*REPORT*/null";

pub fn page(report: &Report) -> Result<String> {
    ensure!(PAGE.contains(REPORT), "the page has no place for a report");
    // What a client sent must not end the script that it stands in.
    let json = serde_json::to_string(report)?.replace('<', "\\u003c");
    Ok(PAGE.replacen(REPORT, &json, 1))
}
