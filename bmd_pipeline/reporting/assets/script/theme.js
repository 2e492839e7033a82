// Light and dark: the system's choice until someone presses the button, whose choice is kept where the browser allows.

const root = document.documentElement;
const darkSystem = window.matchMedia("(prefers-color-scheme: dark)");
const repaints = [];

const isDark = () => (root.dataset.theme ?? (darkSystem.matches ? "dark" : "light")) === "dark";
const ink = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

// Canvases hold pixels, not variables: they are painted again when colours change.
function onRepaint(paint) {
  repaints.push(paint);
  paint();
}

function repaint() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
  for (const paint of repaints) paint();
}

function startTheme() {
  try {
    const kept = localStorage.getItem("bmd-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {
    /* files opened from disk may have no storage */
  }
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("bmd-theme", root.dataset.theme);
    } catch {
      /* as above */
    }
    repaint();
  });
  darkSystem.addEventListener("change", repaint);
  let before;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    repaint();
  });
  window.addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
    repaint();
  });
  repaint();
}
