# fish completion for emactl. Everything that it offers comes from `emactl complete`, which reads the same table as the
# program itself, and asks the daemon for the names of models, profiles and tensors.

function __emactl_complete
	set -l words (commandline -opc)
	set -l current (commandline -ct)
	for line in ($words[1] complete $words[2..-1] "$current" 2>/dev/null)
		switch $line
			case ':files'
				__fish_complete_path "$current"
			case ':folders'
				__fish_complete_directories "$current"
			case '*'
				echo $line
		end
	end
end

complete -c emactl -f -a '(__emactl_complete)'
