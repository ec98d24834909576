// Put first into the page under test: gathers everything that goes wrong in it.
window.problems = [];
window.alert = (text) => problems.push(`alert ${text}`);
window.addEventListener("error", (event) => problems.push(`error ${event.message}`), true);
window.addEventListener("unhandledrejection", (event) => problems.push(`rejection ${event.reason}`));
document.addEventListener("securitypolicyviolation", (event) => problems.push(`policy ${event.violatedDirective}`));
for (const kind of ["error", "warn"]) {
  console[kind] = (...words) => problems.push(`console.${kind} ${words.join(" ")}`);
}
