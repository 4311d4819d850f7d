fn main() -> std::process::ExitCode {
    weir_cli::commands::run("weir-policy")
}
