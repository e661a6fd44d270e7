//! Checks policies: `cargo run --quiet --bin check -- FILE...` names every mistake in them.
//!
//! `check --compile` reads one from standard input and writes to standard output what an isolate
//! loads of it.

use std::{
    fs,
    io::{self, Read, Write},
    process::ExitCode,
};

use tollgate::policy::Policy;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    match files.as_slice() {
        [] => {
            eprintln!("usage: check FILE... | check --compile <FILE >COMPILED");
            return ExitCode::from(2);
        }
        [option] if option == "--compile" => {
            return compile().map_or_else(
                |mistakes| {
                    eprintln!("{mistakes}");
                    ExitCode::FAILURE
                },
                |()| ExitCode::SUCCESS,
            );
        }
        _ => {}
    }
    let mut all_right = true;
    for file in &files {
        all_right &= check(file);
    }
    if all_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn compile() -> Result<(), String> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| format!("policy.toml: {error}"))?;
    let policy = Policy::parse(&text).map_err(|mistakes| mistakes.to_string())?;
    io::stdout()
        .write_all(&policy.compile())
        .map_err(|error| error.to_string())
}

fn check(file: &str) -> bool {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{file}: {error}");
            return false;
        }
    };
    match Policy::parse(&text) {
        Ok(policy) => {
            println!(
                "{file}: ok, {} routes, {} plans",
                policy.routes.len(),
                policy.plans.len()
            );
            for warning in policy.warnings() {
                println!("{file}: warning: {warning}");
            }
            true
        }
        Err(mistakes) => {
            for mistake in mistakes.iter() {
                eprintln!("{file}: {mistake}");
            }
            false
        }
    }
}
