/*
 * A crew and its inspector without a harness: for daemons that somebody else starts and ends, and who says on the
 * standard input stream when to look. Each line is a command, each answer a line: "ok", or what is wrong.
 *
 *   hold        open views, for later
 *   check PID   wait for that daemon; the views that were held, and all averages, must be right
 *   store       have a checkpoint written
 *   pause       no trainer begins another step
 *   resume
 *   end         end the crew; where it was is in its ledgers, and another one with the same directory goes on there
 *
 * A crew may also die with its host. Whoever goes on there says how that ended, "stopped" or "cut": then first of all what
 * came back from disk must be right.
 */
#pragma once

/* What main does when argv[1] is "--attend": url, directory, seed, and how it ended. The exit status. */
int attend_main(int argc, char **argv);
