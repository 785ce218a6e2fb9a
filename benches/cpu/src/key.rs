//! The names of works and sides.
//!
//! | work | sides |
//! | --- | --- |
//! | `bandwidth/ELEMENTS` | `copy`, `triad`, `triad-nt`, `adjoint`, `adjoint-nt`, `read` |
//! | `scan/PASS/f32` or `c64` `/BxTxC` | `ours`, `naive`, `scalar`, and the limits `triad`, `triad-nt` |
//! | `product/MxKxN` | `forward`, `grad-input`, `grad-weight` |
//! | `layer/PASS/TOKENS` | `ours`, `product` |
//! | `train/max-heads`, `train/8-heads` | `ours`, `product` |
//! | `growth/TOKENS` | `ours` |
//! | `generate/WEIGHTS/bBATCH/pPROMPT` | `ours`, `read` |
//!
//! PASS is `forward` or `gradient` (forward and adjoint). The Python workers use the same names.

use crate::bandwidth::{Access, Bandwidth, Stores};
use crate::error::{Problem, Result};
use crate::generate::{self, Generate};
use crate::layer;
use crate::product::{Product, ProductPart};
use crate::scan;
use crate::train::TrainShape;
use crate::work::Work;
use gateloop_benches::Workload;
use gateloop_scan::Complex;

/// Which way a work goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    /// Forward, then the adjoint or backward pass.
    Gradient,
}

/// A key in its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key<'a> {
    text: &'a str,
    work: &'a str,
    side: &'a str,
}

impl<'a> Key<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let (work, side) = text.split_once('@').ok_or(Problem::Unknown { key: text.to_owned() })?;
        Ok(Self { text, work, side })
    }

    /// Whether the work is one of those that differ in the number of tokens only.
    pub(crate) fn is_growth(self) -> bool {
        self.work.starts_with("growth/")
    }

    /// The work, after its answer was found right.
    pub(crate) fn checked(self) -> Result<Box<dyn Work>> {
        let parts: Vec<&str> = self.work.split('/').collect();
        match parts[..] {
            ["train", name] => self.train(TrainShape::named(name), true),
            ["growth", tokens] => self.train(tokens.parse().ok().map(TrainShape::growth), true),
            ["bandwidth", elements] => self.bandwidth(self.number(elements)?),
            ["scan", pass, element, shape] => self.scan(self.pass(pass)?, element, shape),
            ["product", shape] => self.product(shape),
            ["layer", pass, tokens] => self.layer(self.pass(pass)?, self.number(tokens)?),
            ["generate", weights, batch, prompt] => self.generate(weights, batch, prompt),
            _ => Err(self.unknown()),
        }
    }

    /// The work as it is: a check would show up in the peak of the memory.
    pub(crate) fn unchecked(self) -> Result<Box<dyn Work>> {
        let parts: Vec<&str> = self.work.split('/').collect();
        match parts[..] {
            ["train", name] => self.train(TrainShape::named(name), false),
            ["growth", tokens] => self.train(tokens.parse().ok().map(TrainShape::growth), false),
            _ => Err(Problem::Unavailable(format!("the memory of {} is not measured", self.work))),
        }
    }

    fn bandwidth(self, elements: usize) -> Result<Box<dyn Work>> {
        let (access, stores) = match self.side {
            "copy" => (Access::Copy, Stores::Ordinary),
            "triad" => (Access::Triad, Stores::Ordinary),
            "triad-nt" => (Access::Triad, Stores::NonTemporal),
            "adjoint" => (Access::Adjoint, Stores::Ordinary),
            "adjoint-nt" => (Access::Adjoint, Stores::NonTemporal),
            "read" => (Access::Read, Stores::Ordinary),
            _ => return Err(self.unknown()),
        };
        Ok(Box::new(Bandwidth::new(&[access], stores, elements)?))
    }

    fn scan(self, pass: Pass, element: &str, shape: &str) -> Result<Box<dyn Work>> {
        let [batch, seqlen, channels] = self.numbers(shape)?;
        let shape = Workload { batch, seqlen, channels }.shape()?;
        let reals = match element {
            "f32" => 1,
            "c64" => 2,
            _ => return Err(self.unknown()),
        };
        let stores = match self.side {
            "triad" => Stores::Ordinary,
            "triad-nt" => Stores::NonTemporal,
            side if reals == 1 => return scan::checked::<f32>(shape, pass, side),
            side => return scan::checked::<Complex<f32>>(shape, pass, side),
        };
        // What the pass must read and write, and nothing else.
        let accesses: &[Access] = match pass {
            Pass::Forward => &[Access::Triad],
            Pass::Gradient => &[Access::Triad, Access::Adjoint],
        };
        Ok(Box::new(Bandwidth::new(accesses, stores, shape.len() * reals)?))
    }

    fn product(self, shape: &str) -> Result<Box<dyn Work>> {
        let [rows, inner, columns] = self.numbers(shape)?;
        let part = match self.side {
            "forward" => ProductPart::Forward,
            "grad-input" => ProductPart::GradInput,
            "grad-weight" => ProductPart::GradWeight,
            _ => return Err(self.unknown()),
        };
        Ok(Box::new(Product::new([rows, inner, columns], &[part])?))
    }

    fn layer(self, pass: Pass, tokens: usize) -> Result<Box<dyn Work>> {
        match self.side {
            "ours" => layer::checked(pass, tokens),
            "product" => layer::product(pass, tokens),
            _ => Err(self.unknown()),
        }
    }

    fn train(self, shape: Option<TrainShape>, check: bool) -> Result<Box<dyn Work>> {
        let shape = shape.ok_or_else(|| self.unknown())?;
        match self.side {
            "ours" => shape.step(check),
            "product" => shape.products(),
            _ => Err(self.unknown()),
        }
    }

    fn generate(self, weights: &str, batch: &str, prompt: &str) -> Result<Box<dyn Work>> {
        let number = |text: &str, letter| {
            text.strip_prefix(letter).and_then(|n| n.parse().ok()).ok_or_else(|| self.unknown())
        };
        let (batch, prompt) = (number(batch, 'b')?, number(prompt, 'p')?);
        let weights = weights.parse()?;
        match self.side {
            "ours" => Ok(Box::new(Generate::checked(weights, batch, prompt)?)),
            "read" => generate::read_of_weights(weights, batch),
            _ => Err(self.unknown()),
        }
    }

    fn pass(self, pass: &str) -> Result<Pass> {
        match pass {
            "forward" => Ok(Pass::Forward),
            "gradient" => Ok(Pass::Gradient),
            _ => Err(self.unknown()),
        }
    }

    fn number(self, text: &str) -> Result<usize> {
        text.parse().map_err(|_| self.unknown())
    }

    fn numbers(self, text: &str) -> Result<[usize; 3]> {
        let numbers: Vec<usize> = text.split('x').filter_map(|n| n.parse().ok()).collect();
        numbers.try_into().map_err(|_| self.unknown())
    }

    fn unknown(self) -> Problem {
        Problem::Unknown { key: self.text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_exist_are_refused() {
        for key in
            ["scan", "scan/forward/f32/1x2@ours", "scan/forward/f16/1x2x3@ours", "layer/up/3@ours"]
        {
            let result = Key::parse(key).and_then(Key::checked);
            assert!(matches!(result, Err(Problem::Unknown { .. })), "{key}");
        }
    }

    #[test]
    fn every_side_of_a_small_scan_is_right() {
        for element in ["f32", "c64"] {
            for pass in ["forward", "gradient"] {
                for side in ["ours", "naive", "scalar", "triad"] {
                    let key = format!("scan/{pass}/{element}/2x33x5@{side}");
                    assert!(Key::parse(&key).and_then(Key::checked).is_ok(), "{key}");
                }
            }
        }
    }
}
