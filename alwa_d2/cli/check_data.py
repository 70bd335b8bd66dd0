"""All data sets of a config, looked at before they are used."""

from .options import add_config_arguments, png_path

HELP = "look at the data sets of a config: what is there, and what is wrong"
DESCRIPTION = """
Reads all data sets of DATASETS.TRAIN and DATASETS.TEST, annotations and the headers of images, and
prints what they hold, errors (training or evaluation would fail or be wrong) and warnings (probably
not meant), each with file, object and remedy. Exit status 1 if there are errors. docs/check_data.md
has the rest.
"""


def add_arguments(parser):
    decode = (
        "read every pixel too, about a second for 1,000 photographs of 500 x 375: finds broken "
        "images of any format, and the same content under two names"
    )
    parser.add_argument("--decode", action="store_true", help=decode)
    picture = "also draw classes, sizes and what was found into a PNG file"
    parser.add_argument("--output", type=png_path, metavar="FILE", help=picture)
    add_config_arguments(parser)


def run(args) -> int:
    from ..analysis.data_page import page
    from ..data.findings import ERROR
    from ..data.preflight import check_data
    from ..engine import setup_cfg

    cfg = setup_cfg(args.config_file, args.opts)
    report = check_data(cfg, decode=args.decode, progress=True)
    print(page(report))
    if args.output:
        from ..analysis.data_picture import class_legend, draw
        from ..analysis.pictures import rasterise, save_png

        figure = draw(report, args.config_file)
        save_png(lambda scale: rasterise(figure, scale), args.output)
        print(*filter(None, [class_legend(report)]), f"wrote {args.output}", sep="\n")
    return 1 if report.findings.number(ERROR) else 0
