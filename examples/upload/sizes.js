const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** Format a number of bytes, for example as 5.2 MB. */
export function sizeText(bytes) {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1);
  const unitDisplay = power ? "short" : "long";
  const options = { style: "unit", unit: UNITS[power], unitDisplay, maximumFractionDigits: 1 };
  return new Intl.NumberFormat("en", options).format(bytes / 1000 ** power);
}
