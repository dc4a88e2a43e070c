# SPDX-License-Identifier: Apache-2.0
# Completion of drowse for fish.

function __drowse_devices
    printf '%s\n' auto host host:
    set -l number 0
    for gpu in /proc/driver/nvidia/gpus/*
        echo cuda:$number
        set number (math $number + 1)
    end
end

function __drowse_operands
    set -l parts (string match -r '^([^=]*=(?:offload|keep):)(.*)$' -- (commandline -ct))
    if test (count $parts) = 3
        printf '%s\n' $parts[2](__fish_complete_path $parts[3])
    else if string match -q '*=*' -- (commandline -ct)
        set -l tag (string split -m 1 = -- (commandline -ct))[1]
        printf '%s\n' $tag=offload: $tag=discard: $tag=keep:
    end
end

complete -c drowse -f
complete -c drowse -n __fish_use_subcommand -a info -d 'show devices, memory and settings'
complete -c drowse -n __fish_use_subcommand -a cycle -d 'put files to sleep, wake them and check them'
complete -c drowse -s h -l help -d 'a summary'
complete -c drowse -n __fish_use_subcommand -s V -l version -d 'the version'
complete -c drowse -n '__fish_seen_subcommand_from info cycle' -s d -l device -x -a '(__drowse_devices)' -d 'the device'
complete -c drowse -n '__fish_seen_subcommand_from info cycle' -l json -d 'exact values, as JSON'
complete -c drowse -n '__fish_seen_subcommand_from cycle' -s n -l rounds -x -d 'how many times'
complete -c drowse -n '__fish_seen_subcommand_from cycle' -a '(__drowse_operands)'
