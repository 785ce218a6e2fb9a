//! `gateloop generate`

use super::args::GenerateArgs;
use super::{CliError, open_checkpoint, print_bytes, print_line};
use crate::config::{Config, GenerateConfig};
use crate::generate::{BatchGenerator, Sampler, TextStream};
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::time::Instant;
use tch::Device;

pub(super) fn run(args: &GenerateArgs) -> Result<(), CliError> {
    let prompt = prompt(args)?;
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    let config = checkpoint.config();
    let generate = settings(args, config)?;
    let mut model = checkpoint.model(Device::Cpu)?;
    model.quantize(generate.weights.into())?;
    let bytes = model.bytes_per_step();
    let seed = generate.seed.unwrap_or_else(rand::random);
    let top_k = generate.top_k(config.model.num_tokens);
    let sampler = Sampler::new(generate.temperature, top_k, seed);
    // Each text has its own stream of draws; the first is the one of a single text.
    let samplers = (0..args.samples).map(|n| sampler.clone().with_stream(n)).collect();
    let ids: Vec<i64> = prompt.iter().copied().map(i64::from).collect();

    let started = Instant::now();
    let generator = BatchGenerator::from_one(&model, &ids, samplers)?;
    let read_s = started.elapsed().as_secs_f64();
    let started = Instant::now();
    echo_prompt(&prompt);
    let tokens = if args.samples == 1 {
        stream(generator, generate.tokens, args.raw)?
    } else {
        print_all(generator, generate.tokens)?
    };
    if args.stats {
        let wrote_s = started.elapsed().as_secs_f64();
        let (kind, samples) = (model.weight_kind(), args.samples);
        // A closed pipe behind standard error is no failure.
        let _ = writeln!(
            io::stderr(),
            "prompt: {} tokens, {:.0} tokens/s\ntexts: {samples} of {tokens} tokens, {:.0} tokens/s, \
             {:.3} ms a step\nweights: {kind}, {:.1} MB read a step",
            ids.len(),
            ids.len() as f64 / read_s,
            (samples * tokens) as f64 / wrote_s,
            wrote_s * 1e3 / tokens.max(1) as f64,
            bytes as f64 / 1e6,
        );
    }
    Ok(())
}

/// Writes one text as it comes; returns how many tokens its reader has taken.
fn stream(mut generator: BatchGenerator<'_>, tokens: usize, raw: bool) -> Result<u64, CliError> {
    let mut text = TextStream::default();
    for written in 0..tokens {
        let token = generator.next_tokens()?[0];
        let shown = match u8::try_from(token) {
            Ok(byte) if raw => vec![byte],
            _ => text.push(token).into_bytes(),
        };
        if !print_bytes(&shown)? {
            return Ok(written as u64);
        }
    }
    if !raw {
        print_bytes(text.finish().as_bytes())?;
        // A shell's prompt, or the next line of a log, starts on a line of its own.
        print_bytes(b"\n")?;
    }
    Ok(tokens as u64)
}

/// Writes several texts together and prints them one after the other, each under a heading.
fn print_all(mut generator: BatchGenerator<'_>, tokens: usize) -> Result<u64, CliError> {
    let mut texts: Vec<Vec<i64>> = Vec::new();
    for _ in 0..tokens {
        let next = generator.next_tokens()?;
        texts.resize_with(next.len(), Vec::new);
        for (text, token) in texts.iter_mut().zip(next) {
            text.push(token);
        }
    }
    for (n, tokens) in texts.iter().enumerate() {
        let mut text = TextStream::default();
        let shown = text.push_all(tokens) + &text.finish();
        print_line(&format!("=== {} ===\n{shown}\n", n + 1))?;
    }
    Ok(tokens as u64)
}

/// The configuration's settings with the arguments laid over them, checked.
fn settings(args: &GenerateArgs, config: &Config) -> Result<GenerateConfig, CliError> {
    let mut generate = config.generate.clone();
    if let Some(tokens) = args.tokens {
        generate.tokens = tokens as usize;
    }
    if let Some(temperature) = args.temperature {
        generate.temperature = temperature;
    }
    if let Some(filter_thres) = args.filter_thres {
        generate.filter_thres = filter_thres;
    }
    generate.weights = args.weights.unwrap_or(generate.weights);
    generate.seed = args.seed.or(generate.seed);
    generate.validate()?;
    Ok(generate)
}

fn prompt(args: &GenerateArgs) -> Result<Vec<u8>, CliError> {
    let bytes = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => match text.to_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => {
                return Err(CliError::Usage(
                    "--prompt is not valid UTF-8: pass raw bytes with --prompt-file".into(),
                ));
            }
        },
        (None, Some(path)) if path.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(|source| CliError::Io {
                action: "read",
                what: "standard input".into(),
                source,
            })?;
            bytes
        }
        (None, Some(path)) => fs::read(path).map_err(|source| CliError::Io {
            action: "read",
            what: format!("`{}`", path.display()),
            source,
        })?,
        (None, None) => return Err(CliError::Usage("give --prompt or --prompt-file".into())),
    };
    if bytes.is_empty() {
        return Err(CliError::Usage(
            "the prompt is empty: give at least one character to go on from".into(),
        ));
    }
    Ok(bytes)
}

/// On a terminal the text is read together with its beginning; a pipe gets the new text alone.
fn echo_prompt(prompt: &[u8]) {
    if io::stdout().is_terminal() && io::stderr().is_terminal() {
        let mut text = TextStream::default();
        let mut shown: String = prompt.iter().map(|&byte| text.push(i64::from(byte))).collect();
        shown.push_str(&text.finish());
        let _ = write!(io::stderr(), "{shown}");
    }
}
