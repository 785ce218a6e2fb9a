//! The layers: three ways to run them, causality, gradients, parameters, formulas, refusals.

#[path = "../common/mod.rs"]
mod common;

mod attention;
mod causality;
mod errors;
mod formulas;
mod gates;
mod gradients;
mod heinsen;
mod parameters;
mod precision;
mod segments;
mod transition;
mod variants;
mod ways;
