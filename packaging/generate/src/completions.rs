//! Shell completions. clap generates those of options and commands; for bash, this adds interfaces
//! and instances.

use std::error::Error;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use vipherald::cli::Cli;

/// Completes with the lines that a command prints. `compgen -W` would expand them as the shell expands
/// words, including `$(…)`.
const BASH: &str = r#"
_vipherald_among() {
    local line
    while IFS= read -r line; do
        if [[ "${line}" == "$1"* ]]; then
            printf -v line '%q' "${line}"
            COMPREPLY+=("${line}")
        fi
    done
}

_vipherald_interfaces() {
    local folder
    _vipherald_among "$1" < <(for folder in /sys/class/net/*/; do basename "${folder}"; done)
}

_vipherald_instances() {
    _vipherald_among "$1" < <(vipherald show 2>/dev/null |
        sed -n 's/^instance \([^ ]*\).*/\1/p')
}
"#;

/// Writes them all.
pub(crate) fn write(folder: &Path) -> Result<(), Box<dyn Error>> {
    for shell in [Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "vipherald", folder)?;
    }
    let bash = generate_to(Shell::Bash, &mut Cli::command(), "vipherald", folder)?;
    let script = of_bash(&fs::read_to_string(&bash)?)?;
    fs::write(bash, script)?;
    Ok(())
}

fn of_bash(generated: &str) -> Result<String, String> {
    let mut script = generated.to_owned();
    for (option, complete) in [
        ("--interface", "_vipherald_interfaces"),
        ("-i", "_vipherald_interfaces"),
        ("--instance", "_vipherald_instances"),
    ] {
        let case = |then: &str| format!("{0}{option})\n{0}    {then}\n", " ".repeat(16));
        let files = case(r#"COMPREPLY=($(compgen -f "${cur}"))"#);
        if !script.contains(&files) {
            return Err(format!(
                "clap's completions of {option} are not what they were"
            ));
        }
        script = script.replace(&files, &case(&format!(r#"{complete} "${{cur}}""#)));
    }
    // Before the code that calls it.
    Ok(format!("{}\n{script}", BASH.trim_start()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What bash offers for the last word.
    fn offered(script: &Path, words: &[&str]) -> String {
        // Output of `show`; the shell must not run one of its names.
        let program = r#"
            vipherald() {
                echo 'instance VI_1 on eth0, virtual router 51'
                echo '  VIP 192.0.2.10/24 dev eth0'
                echo 'instance VI_2'
                echo 'instance $(echo>&2;echo) on eth0'
                echo 'group G: VI_1'
            }
            . "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _vipherald vipherald "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let bash = Command::new("bash")
            .args(["-c", program, "bash"])
            .arg(script)
            .arg("vipherald")
            .args(words)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&bash.stderr), "");
        String::from_utf8(bash.stdout).unwrap()
    }

    #[test]
    fn bash_offers_interfaces_and_instances() {
        let folder = std::env::temp_dir().join(format!("vipherald-bash-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        write(&folder).unwrap();
        let script = folder.join("vipherald.bash");
        for option in ["-i", "--interface"] {
            for command in ["announce", "purge", "check"] {
                assert_eq!(offered(&script, &[command, option, "l"]), "lo\n");
            }
        }
        let all = "VI_1\nVI_2\n\\$\\(echo\\>\\&2\\;echo\\)\n";
        for command in ["announce", "purge", "check", "show", "order"] {
            assert_eq!(offered(&script, &[command, "--instance", ""]), all);
        }
        assert_eq!(offered(&script, &["check", "--instance", "VI_2"]), "VI_2\n");
        assert!(offered(&script, &["check", "--log", "s"]).contains("syslog"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
