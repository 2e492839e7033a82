// Everything begins here, once the page is read.

function openForPrint() {
  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details[data-print]:not([open])")) {
      part.open = true;
      opened.push(part);
    }
  });
  window.addEventListener("afterprint", () =>
    opened.splice(0).forEach((part) => {
      part.open = false;
    }),
  );
}

openForPrint();
if (data.paths) startReplay(unpackPaths(data.paths));
root.dataset.ready = "true";
