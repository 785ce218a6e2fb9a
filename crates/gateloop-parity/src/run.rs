//! Running a case and comparing.

use crate::case_file::CaseFile;
use crate::compare::{BEYOND, relative_rms};
use crate::error::ParityError;
use crate::report::{Quantity, Report};
use crate::{layers, models};
use gateloop_nn::gate_loop::Form;
use gateloop_transformer::exchange::{self, Layout, jax};
use gateloop_transformer::weights::{self, Metadata, Tensors};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Kind;

/// Longer sequences are not run in the forms whose time or memory grows faster than they do.
const LONGEST_OF_EVERY_FORM: i64 = 128;

/// Runs a case and compares every quantity with the reference's; writes the weights back as the
/// reference would load them, if a folder is given.
pub fn check(path: &Path, back: Option<&Path>) -> Result<Report, ParityError> {
    let file = CaseFile::open(path)?;
    let mut report = Report {
        case: file.case.name.clone(),
        framework: file.case.framework.clone(),
        kind: file.case.kind.clone(),
        quantities: Vec::new(),
        greedy: None,
        problems: Vec::new(),
    };
    let mut errors = BTreeMap::new();
    let held = if file.case.kind == "model" {
        report.greedy = models::greedy(&file)?;
        let (single, held) = models::run(&file, Kind::Float)?;
        let (double, _) = models::run(&file, Kind::Double)?;
        compare(&file, &single, &double, &mut errors)?;
        report.problems = not_in_reference(&file, &single);
        held
    } else {
        let mut held = Tensors::new();
        for form in forms(&file)? {
            let (single, weights) = layers::run(&file, Kind::Float, form)?;
            let (double, _) = layers::run(&file, Kind::Double, form)?;
            compare(&file, &single, &double, &mut errors)?;
            if form == Form::Auto {
                // Forms that were not made for one token round where there is nothing to compute.
                report.problems = not_in_reference(&file, &single);
            }
            held = weights;
        }
        held
    };
    // The reference's Heinsen form takes logarithms in single precision, whatever the rest is in.
    let is_exact = file.case.options.get("engine").is_none_or(|e| e != "heinsen_as_reference");
    for (name, ours) in errors {
        let of = |errors: &BTreeMap<String, f64>| errors.get(&name).copied().unwrap_or(0.0);
        let reference = (of(&file.case.reference), of(&file.case.once));
        report.quantities.push(Quantity::new(name, ours, reference, is_exact));
    }
    if let Some(folder) = back {
        write_back(folder, &file, &held)?;
    }
    Ok(report)
}

/// A gate loop is computed in every form that its shape allows; the worst of them counts.
fn forms(file: &CaseFile) -> Result<Vec<Form>, ParityError> {
    let mut forms = vec![Form::Auto];
    let short = file.need("input.x")?.size()[1] <= LONGEST_OF_EVERY_FORM;
    if file.case.module.as_deref() == Some("gate_loop") && short {
        forms.extend([Form::Recurrent, Form::Chunkwise, Form::Quadratic]);
        let (inner, heads): (i64, i64) = (file.option("dim_inner")?, file.option("heads")?);
        if inner == heads {
            forms.push(Form::Scan);
        }
    }
    Ok(forms)
}

/// Errors in single and in double precision, by quantity.
type Errors = BTreeMap<String, (f64, f64)>;

fn compare(
    file: &CaseFile,
    single: &Tensors,
    double: &Tensors,
    errors: &mut Errors,
) -> Result<(), ParityError> {
    for (name, expected) in file.group("expect") {
        let error = |quantities: &Tensors| match quantities.get(&name) {
            Some(actual) => relative_rms(actual, &expected),
            // A gradient that there is not, where it should be zero, is none the worse.
            None if expected.abs().max().double_value(&[]) == 0.0 => Ok(0.0),
            None => Ok(BEYOND),
        };
        let found = (error(single)?, error(double)?);
        let worst = errors.entry(name.clone()).or_insert((0.0, 0.0));
        *worst = (worst.0.max(found.0), worst.1.max(found.1));
    }
    Ok(())
}

/// Where the reference has no gradient, ours may be zero or none.
fn not_in_reference(file: &CaseFile, quantities: &Tensors) -> Vec<String> {
    quantities
        .iter()
        .filter(|(name, _)| file.get(&format!("expect.{name}")).is_none())
        .filter(|(_, tensor)| tensor.abs().max().double_value(&[]) != 0.0)
        .map(|(name, _)| format!("`{name}` is not zero, and the reference has none"))
        .collect()
}

/// Weights in every format that the framework loads.
fn write_back(folder: &Path, file: &CaseFile, held: &Tensors) -> Result<(), ParityError> {
    std::fs::create_dir_all(folder).map_err(|source| ParityError::Io {
        action: "make",
        path: folder.to_owned(),
        source,
    })?;
    let path = |extension: &str| folder.join(format!("{}.{extension}", file.case.name));
    weights::write(&path("safetensors"), held, Metadata::new())?;
    if file.case.framework == "jax" {
        let tensors = jax::to_pytorch(held)?;
        for extension in ["npz", "eqx"] {
            exchange::write(&path(extension), &tensors, Layout::Jax)?;
        }
    }
    Ok(())
}
