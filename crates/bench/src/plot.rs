//! Line plots as SVG, drawn by plotters. The output depends only on the figures.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _},
    ops::Range,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use plotters::{
    coord::types::RangedCoordf64,
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    },
    element::DashedPathElement,
    prelude::*,
};

/// Size of one plot in pixels, legend included.
const WIDTH: u32 = 1060;
const HEIGHT: u32 = 560;
/// Space around the plotting area, in pixels.
const LEFT: u32 = 92;
const RIGHT: u32 = 360;
const TOP: u32 = 74;
const BOTTOM: u32 = 62;
/// Pixels between two lines of the legend.
const LEGEND_LINE: i32 = 24;

/// Colours that colour-blind readers can distinguish (Okabe and Ito 2008): Nearfield's, and those of peers.
const OWN_COLOURS: [RGBColor; 3] =
    [RGBColor(0xd5, 0x5e, 0x00), RGBColor(0xe6, 0x9f, 0x00), RGBColor(0xcc, 0x79, 0xa7)];
const PEER_COLOURS: [RGBColor; 8] = [
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0x6b, 0x6b, 0x6b),
    RGBColor(0x8a, 0x63, 0xd2),
    RGBColor(0x9c, 0x75, 0x5f),
    RGBColor(0xb5, 0xb5, 0x00),
];
const TEXT: RGBColor = RGBColor(0x22, 0x22, 0x22);
const NOTE: RGBColor = RGBColor(0x66, 0x66, 0x66);
const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);
/// Dash and gap of a line in pixels, so that lines can be distinguished without colour; `None` is solid.
const DASHES: [Option<(u32, u32)>; 4] = [None, Some((7, 3)), Some((2, 3)), Some((12, 4))];

/// Ticks of an axis with [`Scale::Nines`].
const NINES: [f64; 14] =
    [0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];

/// Lines over two axes.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// A line below the title.
    pub(crate) note: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// One axis of a plot.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
    /// The interval shown; if `None`, one around all values.
    pub(crate) range: Option<(f64, f64)>,
}

/// A line through points, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether this is Nearfield: drawn thicker, in a warm colour.
    pub(crate) is_ours: bool,
}

/// How an axis maps values to positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Linear, starting at zero.
    Linear,
    /// Logarithmic.
    Log,
    /// Logarithmic in the distance to one: .9, .99 and .999 are equally far apart.
    Nines,
}

/// Draws the plots one below the other as one document.
pub(crate) fn svg(plots: &[Plot]) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT * plots.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (plot, area) in plots.iter().zip(root.split_evenly((plots.len(), 1))) {
        plot.draw(&area)?;
    }
    root.present()?;
    drop(root);
    Ok(svg)
}

impl Plot {
    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<()> {
        let bold = |size: u32| ("sans-serif", size).into_font().style(FontStyle::Bold).color(&TEXT);
        let plain = |colour| ("sans-serif", 13).into_font().color(colour);
        area.draw(&Text::new(self.title.as_str(), (LEFT as i32, 14), bold(17)))?;
        area.draw(&Text::new(self.note.as_str(), (LEFT as i32, 38), plain(&NOTE)))?;
        let points = self.visible_points();
        let (Some(x), Some(y)) = (
            ScaledRange::of(&self.x, points.iter().flatten().map(|point| point.0)),
            ScaledRange::of(&self.y, points.iter().flatten().map(|point| point.1)),
        ) else {
            let centre = (((LEFT + WIDTH - RIGHT) / 2) as i32, ((TOP + HEIGHT - BOTTOM) / 2) as i32);
            area.draw(&Text::new("no points to show", centre, plain(&TEXT)))?;
            return Ok(());
        };
        let mut chart = ChartBuilder::on(area)
            .margin_top(TOP)
            .margin_right(RIGHT)
            .x_label_area_size(BOTTOM)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(self.x.label.as_str())
            .y_desc(self.y.label.as_str())
            .axis_desc_style(bold(13))
            .label_style(plain(&TEXT))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        let (mut own, mut peers) = (0, 0);
        for (number, (series, points)) in self.series.iter().zip(points).enumerate() {
            let (colours, seen, width) = if series.is_ours {
                (&OWN_COLOURS[..], &mut own, 3)
            } else {
                (&PEER_COLOURS[..], &mut peers, 2)
            };
            let (colour, dash) = (colours[*seen % colours.len()], DASHES[*seen % DASHES.len()]);
            *seen += 1;
            let style = colour.stroke_width(width);
            let (left, y) = ((WIDTH - RIGHT) as i32 + 16, TOP as i32 + 12 + LEGEND_LINE * number as i32);
            let key = [(left, y), (left + 30, y)];
            match dash {
                None => {
                    chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
                    area.draw(&PathElement::new(key, style))?;
                }
                Some((dash, gap)) => {
                    chart.draw_series(DashedLineSeries::new(points.iter().copied(), dash, gap, style))?;
                    area.draw(&DashedPathElement::new(key, dash, gap, style))?;
                }
            }
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            area.draw(&Text::new(series.name.as_str(), (left + 38, y - 7), plain(&TEXT)))?;
        }
        Ok(())
    }

    /// The points of each series that lie within both axes.
    fn visible_points(&self) -> Vec<Vec<(f64, f64)>> {
        let is_visible = |axis: &Axis, value: f64| {
            axis.scale.position(value).is_finite()
                && axis.range.is_none_or(|(low, high)| low <= value && value <= high)
        };
        let keep = |point: &&(f64, f64)| is_visible(&self.x, point.0) && is_visible(&self.y, point.1);
        self.series.iter().map(|series| series.points.iter().filter(keep).copied().collect()).collect()
    }
}

impl Scale {
    /// The position of a value, before it is scaled to pixels; not finite if the axis cannot show it.
    fn position(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.ln(),
            Scale::Nines => -(1.0 - value).ln(),
        }
    }

    /// The interval to show for values from `low` to `high`.
    fn around(self, low: f64, high: f64) -> (f64, f64) {
        match self {
            Scale::Linear => (0.0, if high > 0.0 { high * 1.05 } else { 1.0 }),
            Scale::Log => (low / 1.2, high * 1.2),
            Scale::Nines => {
                let below = NINES.iter().rev().find(|tick| **tick <= low).copied().unwrap_or(0.0);
                let above = NINES.iter().find(|tick| **tick >= high && **tick > below).copied();
                (below, above.unwrap_or(0.99999))
            }
        }
    }
}

/// An interval of an axis, as plotters takes it.
#[derive(Clone, Debug)]
struct ScaledRange {
    scale: Scale,
    low: f64,
    high: f64,
}

impl ScaledRange {
    /// The range of an axis that shows these values; `None` without values.
    fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Option<ScaledRange> {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        let (low, high) = axis.range.unwrap_or_else(|| axis.scale.around(low, high));
        Some(ScaledRange { scale: axis.scale, low, high })
    }
}

impl Ranged for ScaledRange {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let position = |value| self.scale.position(value);
        let share = (position(*value) - position(self.low)) / (position(self.high) - position(self.low));
        first + (f64::from(last - first) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match self.scale {
            Scale::Linear => RangedCoordf64::from(self.range()).key_points(hint),
            Scale::Log => LogCoord::from(self.range().log_scale()).key_points(hint),
            Scale::Nines => NINES.into_iter().filter(|tick| self.range().contains(tick)).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for ScaledRange {
    fn format_ext(&self, value: &f64) -> String {
        with_thousands_separators(*value)
    }
}

fn with_thousands_separators(value: f64) -> String {
    let plain = format!("{}", (value * 1e6).round() / 1e6);
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut out = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// Checks that a plot may be written to `path` before anything is measured: to a new file, in place of an earlier plot, or
/// to a pipe or device.
pub(crate) fn check_path(path: &Path) -> Result<()> {
    let name = || path.display().to_string();
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.with_context(name)?,
    };
    ensure!(!found.is_dir(), "{} is a directory: give the name of a file in it", name());
    if found.is_file() {
        let mut head = Vec::new();
        File::open(path).with_context(name)?.take(4).read_to_end(&mut head).with_context(name)?;
        ensure!(head == b"<svg", "{} exists and is not a plot: choose another name", name());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        Plot {
            title: "speed & recall".to_owned(),
            note: "a <machine>".to_owned(),
            x: Axis { label: "recall@10".to_owned(), scale: Scale::Nines, range: Some((0.9, 0.99)) },
            y: Axis {
                label: "queries per second".to_owned(),
                scale: Scale::Log,
                range: Some((100.0, 10_000.0)),
            },
            series: vec![
                Series {
                    name: "ours".to_owned(),
                    points: vec![(0.9, 10_000.0), (0.99, 100.0)],
                    is_ours: true,
                },
                Series { name: "theirs".to_owned(), points: vec![(0.5, 1.0), (0.9, 1000.0)], is_ours: false },
            ],
        }
    }

    #[test]
    fn a_plot_replaces_an_earlier_plot_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.svg");
        check_path(&path).unwrap();
        fs::write(&path, svg(&[plot()]).unwrap()).unwrap();
        check_path(&path).unwrap();
        fs::write(&path, "notes").unwrap();
        assert!(check_path(&path).unwrap_err().to_string().contains("is not a plot"));
        assert!(check_path(dir.path()).unwrap_err().to_string().contains("is a directory"));
        if cfg!(unix) {
            check_path(Path::new("/dev/null")).unwrap();
        }
    }

    #[test]
    fn points_are_placed_by_the_scales_and_invisible_ones_are_left_out() {
        let svg = svg(&[plot()]).unwrap();
        let (left, right) = (LEFT as i32, (WIDTH - RIGHT) as i32 - 1);
        let (bottom, top) = ((HEIGHT - BOTTOM) as i32 - 1, TOP as i32);
        // The corners of the plotting area, and half way up in the logarithm: 100, 1,000, 10,000.
        let middle = top + (f64::from(bottom - top) / 2.0).round() as i32;
        let circles: Vec<&str> = svg.lines().filter(|line| line.starts_with("<circle")).collect();
        let expected = [(left, top), (right, bottom), (left, middle)];
        assert_eq!(circles.len(), expected.len(), "{svg}");
        for (circle, (x, y)) in circles.iter().zip(expected) {
            let number = |name: &str| -> i32 {
                let rest = circle.split_once(&format!("{name}=\"")).unwrap().1;
                rest.split_once('"').unwrap().0.parse().unwrap()
            };
            assert!((number("cx") - x).abs() <= 1 && (number("cy") - y).abs() <= 1, "{circle}: {x} {y}");
        }
    }

    #[test]
    fn the_document_names_axes_and_series_and_is_escaped() {
        let svg = svg(&[plot(), plot()]).unwrap();
        for text in
            ["recall@10", "queries per second", "ours", "theirs", "speed &amp; recall", "&lt;machine&gt;"]
        {
            assert_eq!(svg.matches(text).count(), 2, "{text} in {svg}");
        }
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        for element in ["svg", "text"] {
            let opened = svg.matches(&format!("<{element} ")).count();
            assert_eq!(opened, svg.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    #[test]
    fn a_plot_without_points_says_so() {
        let mut empty = plot();
        empty.series.clear();
        assert!(svg(&[empty]).unwrap().contains("no points to show"));
    }

    #[test]
    fn thousands_are_separated() {
        let cases =
            [(0.995, "0.995"), (50.0, "50"), (1000.0, "1,000"), (250_000.0, "250,000"), (1.5e6, "1,500,000")];
        for (value, expected) in cases {
            assert_eq!(with_thousands_separators(value), expected);
        }
    }

    #[test]
    fn a_linear_axis_starts_at_zero_and_a_logarithmic_one_cannot_show_it() {
        assert_eq!(Scale::Linear.around(17.0, 200.0), (0.0, 210.0));
        assert_eq!(Scale::Log.around(120.0, 1000.0), (100.0, 1200.0));
        assert!(!Scale::Log.position(0.0).is_finite());
    }

    #[test]
    fn nines_are_equally_far_apart() {
        let position = |value| Scale::Nines.position(value);
        assert!((position(0.99) - position(0.9) - (position(0.999) - position(0.99))).abs() < 1e-9);
        assert!(!position(1.0).is_finite());
        assert_eq!(Scale::Nines.around(0.91, 0.993), (0.9, 0.995));
    }
}
