// Code that is wider than the page is scrolled with the keyboard, too.
document.querySelectorAll(".md-typeset pre").forEach((block) => { block.tabIndex = 0; });
