/*
 * The page that shows what is going on: web_page.html, which is in the program.
 */
#pragma once

/* The page with a nonce for its script and style. Freed with free(); NULL: there is no memory. */
char *web_page_text(const char *nonce);
