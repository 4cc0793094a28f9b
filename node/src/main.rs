//! The `fnmesh` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    fnmesh_node::cli::run(std::env::args_os())
}
