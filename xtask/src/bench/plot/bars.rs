//! Shares of a limit and speed-ups, as bars.

use plotters::prelude::*;

use super::{Drawn, FONT, INK, PALETTE, WIDTH, text_of};
use crate::bench::format;
use crate::bench::plan::Side;
use crate::bench::plan::models::{
    EIGHT_HEADS, LAYER_FORWARD, LAYER_GRADIENT, MAX_HEADS, many_texts, one_text,
};
use crate::bench::plan::scans::{LONG, LONG_COMPLEX, LONG_COMPLEX_GRADIENT, LONG_GRADIENT};
use crate::bench::results::Results;

/// A bar with its name.
pub(crate) type Bar = (String, f64);

/// Our share of the limit in the works that have a target.
pub(crate) fn shares(results: &Results) -> Vec<Bar> {
    let works = [
        (LONG.to_owned(), "scan, forward"),
        (LONG_GRADIENT.to_owned(), "scan, forward + adjoint"),
        (LONG_COMPLEX.to_owned(), "complex scan, forward"),
        (LONG_COMPLEX_GRADIENT.to_owned(), "complex scan, forward + adjoint"),
        (LAYER_FORWARD.to_owned(), "SimpleGateLoop, forward"),
        (LAYER_GRADIENT[0].to_owned(), "SimpleGateLoop, forward + backward"),
        (MAX_HEADS.to_owned(), "training step, max heads"),
        (EIGHT_HEADS.to_owned(), "training step, 8 heads"),
        (one_text("f32", 128), "generation, batch 1"),
        (many_texts("f32"), "generation, batch 64"),
    ];
    let share = |name: &str| {
        let measured = results.work(name)?;
        measured.share(measured.figures.iter().find(|figure| figure.side == Side::OURS)?)
    };
    works.into_iter().filter_map(|(name, title)| Some((title.to_owned(), share(&name)?))).collect()
}

/// How many times as long the peers take.
pub(crate) fn speedups(results: &Results) -> Vec<Bar> {
    let (at_512, gradient) = (one_text("f32", 512), LAYER_GRADIENT[0]);
    let pairs = [
        (LONG, "jax-associative", "scan: jax associative_scan"),
        (LONG, "torch-associative", "scan: torch.compile"),
        (LONG, "jax-scan", "scan: jax lax.scan"),
        (LONG_GRADIENT, "jax-associative", "scan + gradient: jax"),
        (LAYER_FORWARD, "reference", "SimpleGateLoop: PyTorch"),
        (gradient, "reference", "SimpleGateLoop + backward: PyTorch"),
        (MAX_HEADS, "reference", "training step: PyTorch"),
        (EIGHT_HEADS, "reference-checkpointed", "training step, 8 heads: PyTorch"),
        (&at_512, "reference", "a token at 512: PyTorch"),
    ];
    let ratio = |work: &str, side: &str| {
        let measured = results.work(work)?;
        measured.ratio(measured.figures.iter().find(|figure| figure.side.name == side)?)
    };
    pairs
        .into_iter()
        .filter_map(|(work, side, title)| Some((title.to_owned(), ratio(work, side)?)))
        .collect()
}

/// What the length of a bar means; a line marks 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// A share: from 0.
    Linear,
    /// A factor: from 0.5, each doubling as long as the next.
    Logarithmic,
}

impl Scale {
    /// Where a value lies between the start, 0, and the largest value, 1.
    fn place(self, value: f64, most: f64) -> f64 {
        match self {
            Self::Linear => value / most,
            Self::Logarithmic => ((value * 2.0).ln() / (most * 2.0).ln()).max(0.0),
        }
    }

    fn label(self, value: f64) -> String {
        match self {
            Self::Linear => format::percent(value),
            Self::Logarithmic => format!("{} x", format::digits(value)),
        }
    }
}

/// Bars, one under the other.
pub(crate) fn bars(title: &str, scale: Scale, bars: &[Bar]) -> Result<String, String> {
    text_of(|text| paint(text, title, scale, bars))
}

fn paint(text: &mut String, title: &str, scale: Scale, bars: &[Bar]) -> Drawn {
    const ROW: i32 = 38;
    let (left, right) = (290_i32, 810_i32);
    let height = 80 + ROW * bars.len() as i32;
    let root = SVGBackend::with_string(text, (WIDTH, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let label = |size: i32| (FONT, size).into_font().color(&INK);
    root.draw(&Text::new(title.to_owned(), (24, 18), label(22)))?;
    let most = bars.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let at = |value: f64| left + (f64::from(right - left) * scale.place(value, most)) as i32;
    for (index, (name, value)) in bars.iter().enumerate() {
        let y = 64 + ROW * index as i32;
        root.draw(&Text::new(name.clone(), (24, y + 5), label(15)))?;
        root.draw(&Rectangle::new([(left, y), (at(*value), y + 24)], PALETTE[0].filled()))?;
        root.draw(&Text::new(scale.label(*value), (at(*value) + 8, y + 5), label(15)))?;
    }
    root.draw(&PathElement::new([(at(1.0), 56), (at(1.0), height - 12)], INK.stroke_width(1)))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::invented;

    #[test]
    fn bars_are_labelled() {
        let results = invented(|_, side| if side == "ours" { 0.5 } else { 0.25 });
        let (shares, speedups) = (shares(&results), speedups(&results));
        assert_eq!((shares.len(), speedups.len()), (10, 9));
        let svg = bars("share", Scale::Linear, &shares).unwrap();
        assert!(svg.contains("scan, forward + adjoint") && svg.contains("50 %"));
        let svg = bars("faster", Scale::Logarithmic, &speedups).unwrap();
        assert!(svg.contains("training step: PyTorch") && svg.contains("0.500 x"));
        assert!(bars("nothing", Scale::Linear, &[]).is_ok());
    }

    #[test]
    fn scales_start_where_they_say() {
        assert_eq!(Scale::Linear.place(0.5, 2.0), 0.25);
        assert_eq!(Scale::Logarithmic.place(0.5, 8.0), 0.0);
        assert_eq!(Scale::Logarithmic.place(1.0, 8.0), 0.25);
    }
}
