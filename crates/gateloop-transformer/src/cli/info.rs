//! `gateloop info`

use super::args::InfoArgs;
use super::{CliError, open_checkpoint, print_bytes};
use crate::config::Config;
use crate::model::Model;
use std::collections::BTreeMap;
use std::fmt::Write;
use tch::Device;

pub(super) fn run(args: &InfoArgs) -> Result<(), CliError> {
    let mut text = String::new();
    let (config, model) = match (&args.checkpoint, &args.config) {
        (Some(path), _) => {
            let checkpoint = open_checkpoint(path)?;
            let step = checkpoint.progress().step;
            line(&mut text, &format!("# {} (step {step})", checkpoint.path().display()));
            (checkpoint.config().clone(), checkpoint.model(Device::Cpu)?)
        }
        (None, Some(path)) => {
            let config = Config::load(path, &[])?;
            let model = Model::new(&config.model, Device::Cpu)?;
            (config, model)
        }
        (None, None) => {
            return Err(CliError::Usage("give --checkpoint or --config".into()));
        }
    };
    line(&mut text, &config.to_toml()?);
    describe(&mut text, &model);
    print_bytes(text.as_bytes()).map(|_| ())
}

/// Tokens beyond every window.
const MANY: i64 = 1 << 24;

fn describe(text: &mut String, model: &Model) {
    let mut parts: BTreeMap<&str, i64> = BTreeMap::new();
    let mut total = 0;
    for (name, tensor) in model.parameters() {
        let count = tensor.numel() as i64;
        *parts.entry(part_of(&name)).or_default() += count;
        total += count;
    }
    line(text, "parameters");
    for (part, count) in parts {
        line(text, &format!("  {part:<14} {:>12}", grouped(count)));
    }
    line(text, &format!("  {:<14} {:>12}", "total", grouped(total)));
    let per_token = model.state_len(MANY + 1) - model.state_len(MANY);
    let fixed = model.state_len(MANY) - MANY * per_token;
    let numbers = |n: i64| format!("{} numbers, {:.1} KiB in f32", grouped(n), n as f64 / 256.0);
    let state = match (fixed, per_token) {
        (_, 0) => format!("{} for each sequence, whatever its length", numbers(fixed)),
        (0, _) => format!("{} for each token of a sequence", numbers(per_token)),
        _ => format!("{}, and {} for each token", numbers(fixed), numbers(per_token)),
    };
    line(text, &format!("decoding state: {state}"));
}

/// The part of the model that a parameter belongs to.
fn part_of(name: &str) -> &'static str {
    let mut pieces = name.split('.');
    match (pieces.next(), pieces.nth(1), pieces.next()) {
        (Some("token_emb"), ..) => "embedding",
        (Some("layers"), _, Some("norm")) => "norms",
        (Some("layers"), Some("0" | "front"), _) => "mixers",
        (Some("layers"), ..) => "feed-forwards",
        _ => "logits",
    }
}

/// 1234567 as 1,234,567
fn grouped(n: i64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn line(text: &mut String, content: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_fall_into_their_parts() {
        assert_eq!(part_of("token_emb.weight"), "embedding");
        assert_eq!(part_of("layers.3.0.fn.to_qkv.weight"), "mixers");
        assert_eq!(part_of("layers.3.front.fn.to_qkva.0.weight"), "mixers");
        assert_eq!(part_of("layers.3.1.fn.0.bias"), "feed-forwards");
        assert_eq!(part_of("layers.3.0.norm.gamma"), "norms");
        assert_eq!(part_of("to_logits.0.gamma"), "logits");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(4_071_424), "4,071,424");
    }
}
