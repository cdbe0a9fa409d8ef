# bash completion for emactl. Everything that it offers comes from `emactl complete`, which reads the same table as the
# program itself, and asks the daemon for the names of models, profiles and tensors.

_emactl()
{
	local -a words
	local line=${COMP_LINE:0:COMP_POINT} current candidate cut

	# Not COMP_WORDS: bash parts those at ':' and '=' as well, which stand inside of words here.
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	current=${words[-1]}
	# Only what is behind the last ':' or '=' is replaced by bash.
	cut=${current%"${current##*[:=]}"}
	COMPREPLY=()
	while IFS=$'\t' read -r candidate _; do
		case $candidate in
		:files | :folders)
			compopt -o filenames 2>/dev/null
			if [[ $candidate == :files ]]; then
				mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "${current#"$cut"}")
			else
				mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "${current#"$cut"}")
			fi
			;;
		*)
			COMPREPLY+=("${candidate#"$cut"}")
			;;
		esac
	done < <("${words[0]}" complete "${words[@]:1}" 2>/dev/null)
}

complete -F _emactl emactl
