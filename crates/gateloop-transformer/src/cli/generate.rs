//! `gateloop generate`

use super::args::GenerateArgs;
use super::{CliError, open_checkpoint, print_bytes};
use crate::config::{Config, GenerateConfig};
use crate::generate::{Generator, Sampler, TextStream};
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use tch::Device;

pub(super) fn run(args: &GenerateArgs) -> Result<(), CliError> {
    let prompt = prompt(args)?;
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    let config = checkpoint.config();
    let generate = settings(args, config)?;
    let model = checkpoint.model(Device::Cpu)?;
    let seed = generate.seed.unwrap_or_else(rand::random);
    let top_k = generate.top_k(config.model.num_tokens);
    let sampler = Sampler::new(generate.temperature, top_k, seed);
    let ids: Vec<i64> = prompt.iter().copied().map(i64::from).collect();
    let mut generator = Generator::new(&model, &ids, sampler)?;

    echo_prompt(&prompt);
    let mut text = TextStream::default();
    for _ in 0..generate.tokens {
        let token = generator.next_token()?;
        let shown = match u8::try_from(token) {
            Ok(byte) if args.raw => vec![byte],
            _ => text.push(token).into_bytes(),
        };
        if !print_bytes(&shown)? {
            return Ok(());
        }
    }
    if !args.raw {
        print_bytes(text.finish().as_bytes())?;
        // A shell's prompt, or the next line of a log, starts on a line of its own.
        print_bytes(b"\n")?;
    }
    Ok(())
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
