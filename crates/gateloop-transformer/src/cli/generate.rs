//! `gateloop generate`

use super::args::GenerateArgs;
use super::{CliError, open_checkpoint, print_bytes, print_line, quantize};
use crate::config::{Config, GenerateConfig};
use crate::device::device;
use crate::generate::{BatchGenerator, Sampler, SavedState, StopStrings, TextStream};
use crate::vocabulary::{TokenDecoder, Vocabulary};
use std::fs;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::time::Instant;

pub(super) fn run(args: &GenerateArgs) -> Result<(), CliError> {
    let prompt = prompt(args)?;
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    let config = checkpoint.config();
    let generate = settings(args, config)?;
    let vocabulary = checkpoint.vocabulary()?;
    let mut model = checkpoint.model(device(&args.device)?)?;
    // Of the weights as they were trained: it takes time, and only a state needs it.
    let keeps_state = args.save_state.is_some() || args.load_state.is_some();
    let identity = keeps_state.then(|| model.identity()).transpose()?.unwrap_or_default();
    quantize(&mut model, generate.weights.into())?;
    let seed = generate.seed.unwrap_or_else(rand::random);
    let sampler = Sampler::configured(&generate, config.model.num_tokens, seed);
    // Each text has its own stream of draws; the first is the one of a single text.
    let samplers = (0..args.samples).map(|n| sampler.clone().with_stream(n)).collect();

    let begins_with_a_line = prompt.is_empty() && args.load_state.is_none();
    let prompt = if begins_with_a_line {
        // Only a conversation comes without a prompt.
        let Some(line) = next_line()? else { return Ok(()) };
        line
    } else {
        prompt
    };

    let tokens = vocabulary.encode(&prompt)?;
    // What a token spells may depend on those before it.
    let mut before = Vec::new();
    let started = Instant::now();
    let mut generator = match &args.load_state {
        Some(path) => {
            let saved = SavedState::read(path, &identity)?;
            before.extend(saved.recent());
            let mut generator = BatchGenerator::from_saved(&model, &saved, samplers)?;
            generator.read(&tokens)?;
            generator
        }
        None => BatchGenerator::from_one(&model, &tokens, samplers)?,
    };
    let read = generator.position();
    let read_s = started.elapsed().as_secs_f64();
    let started = Instant::now();
    if !begins_with_a_line {
        echo_prompt(&prompt);
    }
    before.extend(&tokens);
    let writing = Writing { generate: &generate, vocabulary: &vocabulary, raw: args.raw };
    let written = if args.interactive {
        writing.converse(&mut generator, &before, !prompt.is_empty())?
    } else if args.samples == 1 {
        writing.stream(&mut generator, &before)?
    } else {
        writing.print_all(&mut generator, &before)?
    };
    if args.stats {
        let wrote_s = started.elapsed().as_secs_f64();
        let (kind, samples) = (model.weight_kind(), args.samples);
        // A closed pipe behind standard error is no failure.
        let _ = writeln!(
            io::stderr(),
            "prompt: {read} tokens, {:.0} tokens/s\ntexts: {samples} of {written} tokens, {:.0} tokens/s, \
             {:.3} ms a step\nweights: {kind}, {:.1} MB read a step",
            read as f64 / read_s,
            (samples * written) as f64 / wrote_s,
            wrote_s * 1e3 / written.max(1) as f64,
            model.bytes_per_step() as f64 / 1e6,
        );
    }
    if let Some(path) = &args.save_state {
        generator.saved(&identity)?.write(path)?;
    }
    Ok(())
}

/// How texts are written.
struct Writing<'a> {
    generate: &'a GenerateConfig,
    vocabulary: &'a Vocabulary,
    /// Bytes as they are, not as printable text.
    raw: bool,
}

impl Writing<'_> {
    /// Writes one text as it comes; returns how many tokens its reader has taken.
    fn stream(&self, generator: &mut BatchGenerator<'_>, before: &[i64]) -> Result<u64, CliError> {
        let tokens = self.generate.tokens as u64;
        let mut shown =
            Shown { raw: self.raw, bytes: self.bytes(before), text: TextStream::default() };
        for written in 0..tokens {
            if shown.bytes.stops.is_stopped() {
                shown.finish()?;
                return Ok(written);
            }
            let token = generator.next_tokens()?[0];
            if !shown.push(token)? {
                return Ok(written);
            }
        }
        shown.finish()?;
        Ok(tokens)
    }

    /// Answers every line until there are no more; returns how many tokens were written.
    fn converse(
        &self,
        generator: &mut BatchGenerator<'_>,
        before: &[i64],
        answers_first: bool,
    ) -> Result<u64, CliError> {
        let mut written = if answers_first { self.stream(generator, before)? } else { 0 };
        while let Some(line) = next_line()? {
            let line = self.vocabulary.encode(&line)?;
            generator.read(&line)?;
            written += self.stream(generator, &line)?;
        }
        Ok(written)
    }

    /// Writes several texts together and prints them one after the other, each under a heading. Returns the tokens of
    /// the longest.
    fn print_all(
        &self,
        generator: &mut BatchGenerator<'_>,
        before: &[i64],
    ) -> Result<u64, CliError> {
        let mut texts: Vec<(Bytes, Vec<u8>)> = Vec::new();
        let mut written = 0;
        while written < self.generate.tokens
            && !texts.iter().all(|(bytes, _)| bytes.stops.is_stopped())
            || written == 0
        {
            let next = generator.next_tokens()?;
            texts.resize_with(next.len(), || (self.bytes(before), Vec::new()));
            for ((bytes, text), token) in texts.iter_mut().zip(next) {
                text.extend(bytes.push(token));
            }
            written += 1;
        }
        for (n, (bytes, written)) in texts.iter_mut().enumerate() {
            written.extend(bytes.finish());
            let mut text = TextStream::default();
            let shown = text.push_bytes(written) + &text.finish();
            print_line(&format!("=== {} ===\n{shown}\n", n + 1))?;
        }
        Ok(written as u64)
    }

    /// For a text that goes on from these tokens.
    fn bytes(&self, before: &[i64]) -> Bytes {
        let mut decoder = self.vocabulary.decoder();
        for token in before {
            decoder.push(*token);
        }
        Bytes { decoder, stops: StopStrings::new(&self.generate.stop) }
    }
}

/// Tokens as the bytes that belong to the text for sure.
struct Bytes {
    decoder: TokenDecoder,
    stops: StopStrings,
}

impl Bytes {
    fn push(&mut self, token: i64) -> Vec<u8> {
        let bytes = self.decoder.push(token);
        bytes.into_iter().flat_map(|byte| self.stops.push(byte)).collect()
    }

    fn finish(&mut self) -> Vec<u8> {
        let rest = self.decoder.finish().into_iter();
        let mut bytes: Vec<u8> = rest.flat_map(|byte| self.stops.push(byte)).collect();
        bytes.extend(self.stops.finish());
        bytes
    }
}

/// A text on its way to standard output.
struct Shown {
    raw: bool,
    bytes: Bytes,
    text: TextStream,
}

impl Shown {
    /// False if its reader has gone away.
    fn push(&mut self, token: i64) -> Result<bool, CliError> {
        let bytes = self.bytes.push(token);
        self.print(&bytes)
    }

    fn print(&mut self, bytes: &[u8]) -> Result<bool, CliError> {
        if self.raw {
            return print_bytes(bytes);
        }
        print_bytes(self.text.push_bytes(bytes).as_bytes())
    }

    fn finish(&mut self) -> Result<(), CliError> {
        let held = self.bytes.finish();
        self.print(&held)?;
        if !self.raw {
            print_bytes(self.text.finish().as_bytes())?;
            // A shell's prompt, or the next line of a log, starts on a line of its own.
            print_bytes(b"\n")?;
        }
        Ok(())
    }
}

/// A line of standard input with its end; `None` after the last one.
fn next_line() -> Result<Option<Vec<u8>>, CliError> {
    if io::stdin().is_terminal() {
        let _ = write!(io::stderr(), "> ");
    }
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line).map_err(|source| CliError::Io {
        action: "read",
        what: "standard input".into(),
        source,
    })?;
    Ok((!line.is_empty()).then_some(line))
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
    if args.top_k.is_some() {
        generate.top_k = args.top_k;
        // The configuration's share of the vocabulary is what is overridden.
        generate.filter_thres = GenerateConfig::default().filter_thres;
    } else if args.filter_thres.is_some() {
        generate.top_k = None;
    }
    for (setting, argument) in [
        (&mut generate.top_p, args.top_p),
        (&mut generate.min_p, args.min_p),
        (&mut generate.repetition_penalty, args.repetition_penalty),
    ] {
        *setting = argument.unwrap_or(*setting);
    }
    if !args.stop.is_empty() {
        generate.stop.clone_from(&args.stop);
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
        // A state or the first line of a conversation stands for it.
        (None, None) => return Ok(Vec::new()),
    };
    if bytes.is_empty() && args.load_state.is_none() {
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
        let mut shown = text.push_bytes(prompt);
        shown.push_str(&text.finish());
        let _ = write!(io::stderr(), "{shown}");
    }
}
