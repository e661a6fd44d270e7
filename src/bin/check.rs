//! Checks policies: `cargo run --quiet --bin check -- FILE...` names every mistake in them.

use std::{fs, process::ExitCode};

use tollgate::policy::Policy;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: check FILE...");
        return ExitCode::from(2);
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
