"""Across organisations: each party of a run in a process and a folder of its own.

    init      a party makes its keys, which never leave its folder, and a public file
    provision the coordinator makes one kit of all public files: who is who, and where they meet
    join      a party takes the kit, and people compare its fingerprint by telephone
    serve     a party waits for an Invite, which it accepts within its own limits or refuses

`folder` is what a party has on its disk, `kit` what all of them know, `offer` what an Invite says
and what a site agrees to, `party` the process that answers, `coordinator` the server's side.
"""
