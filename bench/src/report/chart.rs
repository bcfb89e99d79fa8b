//! The figures as bars, in an SVG that any browser draws.

use super::Row;
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LABEL: f64 = 210.0;
const BARS: f64 = 260.0;
const SECOND: f64 = LABEL + BARS + 90.0;
const LINE: f64 = 18.0;

/// Operations a second on the left, processor time of the servers for each on the right.
#[must_use]
pub fn chart(rows: &[Row]) -> String {
    let mut loads = Vec::new();
    for row in rows {
        if !loads.contains(&row.load) {
            loads.push(row.load);
        }
    }
    let height = 70.0 + loads.len() as f64 * (LINE + 10.0) + rows.len() as f64 * LINE;
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LABEL}\" y=\"24\" font-weight=\"bold\">operations a second</text>\n\
         <text x=\"{SECOND}\" y=\"24\" font-weight=\"bold\">server CPU µs per operation</text>"
    );
    let mut y = 50.0;
    for load in loads {
        let of_load: Vec<&Row> = rows.iter().filter(|row| row.load == load).collect();
        let rate = |row: &Row| row.outcome.rate();
        let micros = |row: &Row| row.outcome.server_micros();
        let most = |figures: Vec<f64>| figures.into_iter().fold(1e-9, f64::max);
        let most_rate = most(of_load.iter().map(|row| rate(row)).collect());
        let most_micros = most(of_load.iter().map(|row| micros(row)).collect());
        let _ = writeln!(svg, "<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{}</text>", load.name());
        y += LINE;
        for row in of_load {
            let _ = writeln!(svg, "<text x=\"24\" y=\"{y}\">{}</text>", row.system);
            bar(&mut svg, LABEL, y, rate(row) / most_rate, &format!("{:.0}", rate(row)), row.system);
            bar(&mut svg, SECOND, y, micros(row) / most_micros * 0.7, &format!("{:.1}", micros(row)), row.system);
            y += LINE;
        }
        y += 10.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(svg: &mut String, x: f64, y: f64, share: f64, label: &str, system: &str) {
    let colour = match system {
        "Redis Cluster" => "#c6564b",
        "Redis Cluster, WAIT along" => "#dd958d",
        "etcd" => "#7a9cc6",
        "Annulus" => "#2f7d5b",
        _ => "#79b89a",
    };
    let width = (share * BARS).max(1.0);
    let (top, end) = (y - 11.0, x + width + 5.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"13\" fill=\"{colour}\"/><text x=\"{end:.1}\" y=\"{y}\">{label}</text>"
    );
}
