//! Line plots as SVG: the same figures give the same file, whatever the day.

mod scale;

use std::fmt::Write as _;

pub(crate) use scale::Scale;

/// Pixels of one plot, legend included.
const WIDTH: f64 = 1060.0;
const HEIGHT: f64 = 560.0;
/// Pixels from the edges to the area that is drawn in.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 360.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 62.0;

/// Colours that colour-blind readers tell apart (Okabe and Ito 2008), ours first.
const OURS: [&str; 3] = ["#d55e00", "#e69f00", "#cc79a7"];
const OTHERS: [&str; 8] =
    ["#000000", "#0072b2", "#56b4e9", "#009e73", "#6b6b6b", "#8a63d2", "#9c755f", "#b5b500"];
/// Dashes of lines, so that they can be told apart without colour.
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];

/// Lines over two axes.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// Below the title: what else a reader must know.
    pub(crate) note: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// One direction of a plot.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
    /// What is shown; all there is, if `None`.
    pub(crate) within: Option<(f64, f64)>,
}

/// A line through points, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Drawn in a warm colour and thicker.
    pub(crate) is_ours: bool,
}

/// The plots below one another as one document.
pub(crate) fn svg(plots: &[Plot]) -> String {
    let height = HEIGHT * plots.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (number, plot) in plots.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * number as f64);
        plot.draw(&mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

/// Where values of one axis stand.
struct Ruler<'a> {
    axis: &'a Axis,
    low: f64,
    high: f64,
    /// Pixels of `low` and `high`.
    ends: (f64, f64),
}

impl Ruler<'_> {
    fn place(&self, value: f64) -> f64 {
        let position = |value| self.axis.scale.position(value);
        let share = (position(value) - position(self.low)) / (position(self.high) - position(self.low));
        self.ends.0 + (self.ends.1 - self.ends.0) * share
    }
}

impl Plot {
    fn draw(&self, out: &mut String) {
        text(out, LEFT, 28.0, "start", "font-size=\"17\" font-weight=\"bold\"", &self.title);
        text(out, LEFT, 48.0, "start", "fill=\"#666\"", &self.note);
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let shown = self.shown();
        let xs = || shown.iter().flatten().map(|point| point.0);
        let ys = || shown.iter().flatten().map(|point| point.1);
        let (Some(x), Some(y)) =
            (ruler(&self.x, &mut xs(), (LEFT, right)), ruler(&self.y, &mut ys(), (bottom, TOP)))
        else {
            text(out, (LEFT + right) / 2.0, (TOP + bottom) / 2.0, "middle", "", "no points to show");
            return;
        };
        for tick in self.x.scale.ticks(x.low, x.high) {
            let at = x.place(tick);
            line(out, (at, TOP), (at, bottom));
            text(out, at, bottom + 20.0, "middle", "", &number(tick));
        }
        for tick in self.y.scale.ticks(y.low, y.high) {
            let at = y.place(tick);
            line(out, (LEFT, at), (right, at));
            text(out, LEFT - 8.0, at + 4.5, "end", "", &number(tick));
        }
        let _ = writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#444\"/>",
            right - LEFT,
            bottom - TOP
        );
        text(out, (LEFT + right) / 2.0, HEIGHT - 18.0, "middle", "font-weight=\"bold\"", &self.x.label);
        let (at_x, at_y) = (22.0, (TOP + bottom) / 2.0);
        let turned = format!("font-weight=\"bold\" transform=\"rotate(-90 {at_x} {at_y})\"");
        text(out, at_x, at_y, "middle", &turned, &self.y.label);
        self.draw_series(out, &shown, &x, &y);
    }

    fn draw_series(&self, out: &mut String, shown: &[Vec<(f64, f64)>], x: &Ruler<'_>, y: &Ruler<'_>) {
        let (mut ours, mut others) = (0, 0);
        for (place, (series, points)) in self.series.iter().zip(shown).enumerate() {
            let (colours, seen, width) =
                if series.is_ours { (&OURS[..], &mut ours, 2.6) } else { (&OTHERS[..], &mut others, 1.6) };
            let (colour, dash) = (colours[*seen % colours.len()], DASHES[*seen % DASHES.len()]);
            *seen += 1;
            let style = format!(
                "fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dash}\""
            );
            let path: Vec<String> = points
                .iter()
                .map(|point| format!("{:.1},{:.1}", x.place(point.0), y.place(point.1)))
                .collect();
            let _ = writeln!(out, "<polyline points=\"{}\" {style}/>", path.join(" "));
            for point in &path {
                let (at_x, at_y) = point.split_once(',').expect("a point was printed with a comma");
                let _ = writeln!(out, "<circle cx=\"{at_x}\" cy=\"{at_y}\" r=\"3\" fill=\"{colour}\"/>");
            }
            let (from, at) = (WIDTH - RIGHT + 16.0, TOP + 12.0 + 24.0 * place as f64);
            let _ = writeln!(out, "<path d=\"M{from} {at}h30\" {style}/>");
            text(out, from + 38.0, at + 4.5, "start", "", &series.name);
        }
    }

    /// The points of each series that both axes show.
    fn shown(&self) -> Vec<Vec<(f64, f64)>> {
        let is_within = |axis: &Axis, value: f64| {
            axis.scale.position(value).is_finite()
                && axis.within.is_none_or(|(low, high)| low <= value && value <= high)
        };
        let kept = |point: &&(f64, f64)| is_within(&self.x, point.0) && is_within(&self.y, point.1);
        self.series.iter().map(|series| series.points.iter().filter(kept).copied().collect()).collect()
    }
}

/// The ruler of an axis that shows these values; `None` without values.
fn ruler<'a>(axis: &'a Axis, values: &mut dyn Iterator<Item = f64>, ends: (f64, f64)) -> Option<Ruler<'a>> {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return None;
    }
    let (low, high) = axis.within.unwrap_or_else(|| axis.scale.around(low, high));
    Some(Ruler { axis, low, high, ends })
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#e2e2e2\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{text}</text>");
}

/// With commas between thousands.
fn number(value: f64) -> String {
    let plain = format!("{}", (value * 1e6).round() / 1e6);
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut out = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        Plot {
            title: "speed & recall".to_owned(),
            note: "a <machine>".to_owned(),
            x: Axis { label: "recall@10".to_owned(), scale: Scale::Nines, within: Some((0.9, 0.99)) },
            y: Axis { label: "queries a second".to_owned(), scale: Scale::Log, within: None },
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
    fn points_stand_where_the_scales_put_them() {
        let svg = svg(&[plot()]);
        let (left, right) = (LEFT, WIDTH - RIGHT);
        let (bottom, top) = (HEIGHT - BOTTOM, TOP);
        // The corners of the area, and half way up in the logarithm: 100, 1,000, 10,000.
        assert!(svg.contains(&format!("points=\"{left:.1},{top:.1} {right:.1},{bottom:.1}\"")), "{svg}");
        let half = (bottom + top) / 2.0;
        assert!(svg.contains(&format!("points=\"{left:.1},{half:.1}\"")), "{svg}");
    }

    #[test]
    fn the_document_names_axes_and_series_and_is_escaped() {
        let svg = svg(&[plot(), plot()]);
        for text in
            ["recall@10", "queries a second", ">ours<", ">theirs<", "speed &amp; recall", "&lt;machine&gt;"]
        {
            assert_eq!(svg.matches(text).count(), 2, "{text} in {svg}");
        }
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for element in ["svg", "g", "text"] {
            let opened = svg.matches(&format!("<{element} ")).count();
            assert_eq!(opened, svg.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    #[test]
    fn a_plot_without_points_says_so() {
        let mut empty = plot();
        empty.series.clear();
        assert!(svg(&[empty]).contains("no points to show"));
    }

    #[test]
    fn thousands_are_set_apart() {
        let cases =
            [(0.995, "0.995"), (50.0, "50"), (1000.0, "1,000"), (250_000.0, "250,000"), (1.5e6, "1,500,000")];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }
}
