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

startTheme();
openForPrint();
if (data.paths) {
  const paths = unpackPaths(data.paths);
  startScatter();
  startPanels(paths);
  startReplay(paths);
  startCurves();
  startPretraining();
  startCodes();
  startValidation();
  startSweep();
}
if (data.tasks) startPictures();
root.dataset.ready = "true";
