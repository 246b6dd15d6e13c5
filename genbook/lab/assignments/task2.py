"""Task 2: the variational autoencoder."""

from genbook.lab.checks import samples

from .cells import answer, checked, drawing, given, question, setup, test, text
from .sources import BEGIN, END, blank_body, definition, standalone

CHECKS = "genbook.lab.checks.vae"
SAMPLES = "genbook.lab.checks.samples"
POINTS = 10  # for the improved VAE

IMPROVED = f"""\
{BEGIN}
paddle.seed(0)
latent_dim = 16
improved = VAE(hidden=(512, 512, 256), latent_dim=latent_dim)
fit(improved, vae_loss, digits.images, steps=3000, batch_size=64, lr=2e-3)
{END}
"""


def cells(hidden):
    """The cells of the assignment. hidden: seeds of the hidden tests."""
    own = ["genbook.vae.reparameterize", "genbook.vae.gaussian_kl"]
    rest = standalone(
        "genbook.vae.VAE", "genbook.vae.vae_loss", "genbook.vae.squared_error", without=own
    )
    table = "\n".join(
        f"| {share:.0%} | {POINTS * part:g} |" for share, part in samples.LEGIBILITY.items()
    )
    return [
        text("intro", """
# Task 2: a variational autoencoder

You write the two functions that turn an autoencoder into a variational one (VAE), say what they are for,
and then make it better.

Write only where it says `YOUR CODE HERE` or `YOUR ANSWER HERE`; you may add cells of your own.
Cells that begin with `def check():` are tests. Run one, and it shows the points, and says in words what is
wrong. An answer that is right in part gets a part of them, however it is written. Before you hand in, restart the kernel and run all cells from top to bottom: on one processor
core, this must take less than three minutes.
"""),
        setup(),
        text("a", r"""
## (a) Reparameterize

The encoder gives, for each image, the mean $\mu$ and the logarithm of the variance, $\log \sigma^2$, of
a normal distribution of codes. A code is drawn as

$$z = \mu + \sigma \epsilon, \qquad \epsilon \sim \mathcal{N}(0, I) .$$
"""),
        answer("reparameterize", blank_body(definition("genbook.vae.reparameterize"))),
        checked("reparameterize-test", 4, f"{CHECKS}.check_reparameterize", "reparameterize", hidden),
        *question("why-reparameterize", 3, r"""
Why is $z$ not simply drawn from $\mathcal{N}(\mu, \sigma^2)$ by a random generator that is given $\mu$
and $\sigma$? What does the network learn through this line of code that it could not learn otherwise?
""", r"""
A draw is not differentiable: no gradient would reach the encoder through it. Here the randomness is in
epsilon, which depends on no weight, and z is a differentiable function of mu and sigma, with
dz/dmu = 1 and dz/dsigma = epsilon. So the encoder learns from the reconstruction error.
"""),
        text("b", r"""
## (b) The KL divergence

The loss of the VAE adds to the reconstruction error the Kullback–Leibler divergence of the code's
distribution from the prior $\mathcal{N}(0, I)$, for each image the sum over the $J$ dimensions

$$D_{\mathrm{KL}} = \frac12 \sum_{j=1}^{J} \big( \sigma_j^2 + \mu_j^2 - 1 - \log \sigma_j^2 \big) .$$
"""),
        answer("gaussian-kl", blank_body(definition("genbook.vae.gaussian_kl"))),
        checked("gaussian-kl-test", 4, f"{CHECKS}.check_gaussian_kl", "gaussian_kl", hidden),
        *question("role-of-kl", 3, """
What would the VAE do without the KL divergence, and why could you then not draw new digits from it? What
would it do if the KL divergence weighed a hundred times as much?
""", """
Without it the encoder would make sigma vanish and spread the means, as an autoencoder does; codes drawn
from N(0, I) would then fall where the decoder was never trained. With a weight of a hundred, all codes
would be N(0, I) whatever the image, and the decoder could only give the mean image.
"""),
        text("baseline-intro", "## The baseline\n\nThe rest of the VAE is given. It uses your two "
             "functions."),
        given("vae", rest),
        given("baseline", """
digits, test = load("digits"), load("digits", "test")


def squared_error_loss(model, x):
    return vae_loss(model, x, pixel_loss=squared_error)


paddle.seed(0)
baseline = VAE(hidden=(400,), latent_dim=20)
history = fit(baseline, squared_error_loss, digits.images, steps=500)
with paddle.no_grad():
    drawn = baseline.decode(paddle.randn([10, 20]))
image_rows({"real": test.images[:10], "baseline": drawn})
"""),
        text("c", f"""
## (c) Improve it

Its samples can hardly be read. Make them better. You may change anything: the loss, its weights, the
network, the training, the images it is trained on. Your code must leave two names:

- `improved`, with `improved.decode(z)`, which maps codes `[N, latent_dim]` to images `[N, 1, 16, 16]`
  in [0, 1], each from its own code alone;
- `latent_dim`.

Its training may take 60 seconds on one core.

**How it is graded.** A thousand codes are drawn from $\\mathcal{{N}}(0, I)$ with a seed that you do not
know, and decoded. A judge, a classifier trained on the real digits, reads the images; one is *legible* if
the judge gives a digit at least 90 %. What counts first is the share of legible samples, divided by the same
share of real test images. Between the lines of the table the points rise evenly:

| share | points |
|---|---|
{table}

Fewer points are left where some digits hardly occur (from a class entropy of {max(samples.ENTROPY)} down to
none at {min(samples.ENTROPY)}), where samples are copies of training images (from {min(samples.COPIES):.0%} up
to none at {max(samples.COPIES):.0%}), and where the samples are too much alike. The test says what costs
points, and prints a line for the leaderboard of your class.
"""),
        answer("improve", IMPROVED),
        test("improve-test", POINTS,
             ["genbook.data.load", "genbook.evaluation.judge.train_judge",
              "genbook.lab.checks.compare.untouched",
              *(f"{SAMPLES}.{n}" for n in ("score_samples", "points", "leaderboard_line"))], """
decode, width = improved.decode, latent_dim
digits, test = load("digits"), load("digits", "test")
with untouched():
    judge = train_judge(digits, steps=600, batch_size=32)
score = score_samples(decode, width, judge, digits.images, test.images)
print(leaderboard_line(score))
""", f"""
score = score_samples(decode, width, judge, digits.images, test.images, {hidden[0]})
print(leaderboard_line(score, "with the seed of the grading"))
""", f"points(score, {POINTS})"),
        text("codes-intro", r"""
## The codes of an autoencoder and of a VAE

Two networks of the same shape with codes of two numbers: one is trained as a VAE, the other as an
autoencoder, $z = \mu$, without noise and without KL divergence. `codes["VAE"]` and
`codes["autoencoder"]` are the means $\mu$, `[N, 2]`, of the test images.
"""),
        given("plane", """
def autoencoder_loss(model, x):
    mu, _ = model.encode(x)
    return reconstruction_loss(model.decode(mu), x).mean()


codes, planes = {}, {}
for name, loss in {"VAE": vae_loss, "autoencoder": autoencoder_loss}.items():
    paddle.seed(0)
    planes[name] = VAE(hidden=(200,), latent_dim=2)
    fit(planes[name], loss, digits.images, steps=1000, name=name)
    with paddle.no_grad():
        codes[name] = planes[name].encode(paddle.to_tensor(test.images))[0].numpy()
"""),
        text("figure-question", "**Figure (4 points).** Draw both sets of codes side by side, coloured by "
             "`test.labels`, with the scale of the axes to be read."),
        drawing("figure", 4, """
figure, axes = plt.subplots(1, 2, figsize=(10, 4))
for ax, (name, z) in zip(axes, codes.items()):
    points = ax.scatter(z[:, 0], z[:, 1], c=test.labels, cmap="tab10", s=8)
    ax.set_title(name)
figure.colorbar(points, ax=axes)
plt.show()
"""),
        *question("codes", 4, """
How do the two sets differ in scale, in shape, and in the gaps between the digits? From which of the two
would you draw new codes, and how?
""", """
The codes of the VAE lie around zero with a spread of about one, without large gaps, since the KL divergence
pulls them to N(0, I). Those of the autoencoder take up any scale, with gaps that decode to nothing. From the
VAE one draws z from N(0, I).
"""),
    ]  # fmt: skip
